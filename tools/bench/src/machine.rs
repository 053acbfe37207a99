//! What the bench asks of the machine: resident bytes, bytes on disk, threads, a core, a file system.
//!
//! Everything is read from `/proc` and from the metadata of files. Where a machine does not have
//! that, the answer is none or 0, and the figure is left out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;

/// Bytes of one block that file metadata counts, whatever the file system uses.
const STAT_BLOCK_BYTES: u64 = 512;

/// Resident set of this process.
pub fn resident_bytes() -> u64 {
    status("VmRSS:").and_then(|v| v.trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Value of one line of this process's status.
fn status(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// Open descriptors of this process; the one that lists them is not counted.
pub fn descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |listed| (listed.count() as u64).saturating_sub(1))
}

/// Names of the threads of this process, sorted.
pub fn threads() -> Vec<String> {
    let mut names = of_threads("comm", |comm| Some(comm.trim().to_owned()));
    names.sort_unstable();
    names
}

/// How often threads of this process other than the calling one gave up the processor by themselves:
/// every wake-up ends with that.
pub fn waits_of_others() -> u64 {
    let own = fs::read_link("/proc/thread-self").ok();
    let own =
        own.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let waits = |text: &str| {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        if value("Pid:").map(str::trim) == own.as_deref() {
            return None;
        }
        value("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok()
    };
    of_threads("status", waits).into_iter().sum()
}

fn of_threads<T>(file: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let Ok(listed) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let texts = listed.filter_map(|task| fs::read_to_string(task.ok()?.path().join(file)).ok());
    texts.filter_map(|text| read(&text)).collect()
}

/// Bytes this process gave to writing calls, and bytes it made the disk owe.
pub fn written_bytes() -> (u64, u64) {
    (transferred("wchar:"), transferred("write_bytes:"))
}

/// Bytes that were not in the page cache when this process wanted them.
pub fn missed_bytes() -> u64 {
    transferred("read_bytes:")
}

fn transferred(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Seconds that the threads this process has now spent on a processor, the kernel's work for them included.
/// What waits for a core, or for the disk, is not in it.
pub fn processor_seconds() -> f64 {
    let on_core = |text: &str| text.split_whitespace().next()?.parse::<f64>().ok();
    of_threads("schedstat", on_core).into_iter().sum::<f64>() / 1e9
}

/// Bytes that a file, or all files under a folder, take on disk: allocated blocks, so that room
/// set aside counts and holes do not.
pub fn disk_bytes(path: &Path) -> Outcome<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.blocks() * STAT_BLOCK_BYTES);
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        sum += disk_bytes(&entry?.path())?;
    }
    Ok(sum)
}

/// Reads every file under a folder once, so that all of it is in the page cache.
pub fn warm(path: &Path) -> Outcome<()> {
    if fs::metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            warm(&entry?.path())?;
        }
    } else {
        std::io::copy(&mut fs::File::open(path)?, &mut std::io::sink())?;
    }
    Ok(())
}

/// The last core this process may use, if `taskset` is there to pin another process to it.
pub fn core_to_pin() -> Option<u32> {
    let tried = Command::new("taskset")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        return None;
    }
    let list = status("Cpus_allowed_list:")?;
    list.rsplit([',', '-']).next()?.parse().ok()
}

/// Kind of the file system a folder lies on, such as `ext4` or `tmpfs`.
pub fn file_system(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(_), Some(at), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        // The last of equal mount points hides the others.
        if path.starts_with(at) && best.is_none_or(|(len, _)| at.len() >= len) {
            best = Some((at.len(), kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

/// Name of the processor, as the machine gives it.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map_or("unknown processor", |(_, n)| n);
    name.trim().to_owned()
}
