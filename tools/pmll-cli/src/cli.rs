//! The command line: global options, the commands, and the rule for the leading DIR.
//!
//! `--store DIR` or `PMLL_STORE` replaces the leading DIR of every command: the directory is put in
//! its place before the line is parsed ([`with_store`]), so that each command is defined once, with
//! DIR. Each command's own arguments stand beside its code in `cmd_*.rs`.

use std::ffi::{OsStr, OsString};

use clap::{Args, Parser, Subcommand};

use crate::{
    cmd_collections, cmd_compress, cmd_crash_test, cmd_delete, cmd_doctor, cmd_eval, cmd_export,
    cmd_get, cmd_import, cmd_list, cmd_put, cmd_salvage, cmd_search, cmd_store, demo,
};

const ABOUT: &str = "Put, find, import, export and check memories kept by pmll in a directory";

const AFTER: &str = "\
First steps, without a model and without a network:
  pmll put memory notes --text 'Caroline plays the violin'
  pmll search memory notes 'who plays violins?'

--store DIR or PMLL_STORE replaces the leading DIR of every command.
Sizes are written like 64MiB, durations like 90s, 15m or 7d, times like 2026-11-21T05:00:00Z (UTC).

Exit codes:
  0  done
  1  no such store, collection, key or setting
  2  wrong command line
  3  invalid value or input file
  4  another process has the store
  5  damaged files
  6  no room, or the operating system refused
  7  files of another version of pmll
  70 a bug in pmll
  130 interrupted by Ctrl-C

Environment:
  PMLL_STORE  directory of the store, instead of DIR
  PMLL_LOG    what to log to stderr, such as `info` or `pmll=debug`; never payloads
  NO_COLOR    no colours";

/// The whole command line.
#[derive(Parser, Debug)]
#[command(name = "pmll", version, about = ABOUT, after_help = AFTER, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Directory of the store, instead of the leading DIR; PMLL_STORE does the same
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<OsString>,
    /// Print JSON: one object, or one object a line; errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Memory that may grow with the data, such as 64MiB; at least 1MiB
    #[arg(long, global = true, value_name = "SIZE", value_parser = pmll_cli::time::parse_size)]
    pub budget: Option<u64>,
    /// No progress bars and remarks
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    Init(cmd_store::InitArgs),
    Put(cmd_put::PutArgs),
    Get(cmd_get::GetArgs),
    List(cmd_list::ListArgs),
    Count(cmd_list::CountArgs),
    Search(cmd_search::SearchArgs),
    Delete(cmd_delete::DeleteArgs),
    Touch(cmd_get::TouchArgs),
    Pin(cmd_get::PinArgs),
    Unpin(cmd_get::UnpinArgs),
    Collections(cmd_collections::CollectionsArgs),
    Drop(cmd_collections::DropArgs),
    Import(cmd_import::ImportArgs),
    Export(cmd_export::ExportArgs),
    Eval(cmd_eval::EvalArgs),
    Config(cmd_collections::ConfigArgs),
    Checkpoint(cmd_store::CheckpointArgs),
    Compress(cmd_compress::CompressArgs),
    Why(cmd_compress::WhyArgs),
    Vacuum(cmd_store::VacuumArgs),
    Verify(cmd_store::VerifyArgs),
    Salvage(cmd_salvage::SalvageArgs),
    Stats(cmd_store::StatsArgs),
    Doctor(cmd_doctor::DoctorArgs),
    Demo(demo::DemoArgs),
    #[command(name = demo::WRITER_COMMAND, hide = true)]
    DemoWriter(demo::WriterArgs),
    CrashTest(cmd_crash_test::CrashTestArgs),
    #[command(name = cmd_crash_test::WRITER_COMMAND, hide = true)]
    CrashTestWriter(cmd_crash_test::WriterWords),
    Completions(cmd_doctor::CompletionsArgs),
}

/// Commands without a leading DIR.
const WITHOUT_DIR: &[&str] = &[
    "completions",
    "crash-test",
    cmd_crash_test::WRITER_COMMAND,
    "demo",
    demo::WRITER_COMMAND,
    "help",
];
/// Options whose value may look like another option.
const WITH_VALUE: &[&str] = &["--store", "--budget", "--text", "--sort", "--min-score"];

/// What is known of a line before it is parsed.
#[derive(Debug, Default, PartialEq)]
pub struct Glance {
    /// Whether `--json` stands anywhere.
    pub json: bool,
    /// Whether DIR was put in from `--store` or `PMLL_STORE`.
    pub placed: bool,
}

/// Puts the directory of `--store` or `PMLL_STORE` where DIR belongs: behind the command's name
/// (`config get` and `config set` have two words).
pub fn with_store(line: Vec<OsString>, env: Option<OsString>) -> (Vec<OsString>, Glance) {
    let mut glance = Glance::default();
    let mut store = env.filter(|dir| !dir.is_empty());
    let mut words: Vec<usize> = Vec::new();
    let mut at = 1;
    while let Some(word) = line.get(at) {
        let text = word.to_str().unwrap_or_default();
        if text == "--" {
            break;
        }
        if text == "--json" {
            glance.json = true;
        } else if let Some(dir) = text.strip_prefix("--store=") {
            store = Some(dir.into());
        } else if WITH_VALUE.contains(&text) {
            if text == "--store" {
                store = line.get(at + 1).cloned().or(store);
            }
            at += 1;
        } else if words.len() < 2 && !text.starts_with('-') {
            words.push(at);
        }
        at += 1;
    }
    let is =
        |word: usize, name: &str| line.get(word).map(OsString::as_os_str) == Some(OsStr::new(name));
    let behind = match words.as_slice() {
        [] => return (line, glance),
        [first, ..] if WITHOUT_DIR.iter().any(|name| is(*first, name)) => return (line, glance),
        [first, second] if is(*first, "config") => {
            if !is(*second, "get") && !is(*second, "set") {
                return (line, glance);
            }
            *second
        }
        [first, ..] => *first,
    };
    let mut line = line;
    if let Some(dir) = store {
        line.insert(behind + 1, dir);
        glance.placed = true;
    }
    (line, glance)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_hold() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                after.contains(&format!("pmll {}", command.get_name())),
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn the_store_takes_the_place_of_dir() {
        let check = |line: &str, env: Option<&str>, want: &str| {
            let line = line.split(' ').map(OsString::from).collect();
            let (got, _) = with_store(line, env.map(OsString::from));
            let got: Vec<_> = got.iter().map(|w| w.to_string_lossy().into_owned()).collect();
            assert_eq!(got.join(" "), want);
        };
        check("pmll get d n k", None, "pmll get d n k");
        check("pmll get n k", Some("e"), "pmll get e n k");
        check("pmll get n k --store s", Some("e"), "pmll get s n k --store s");
        check("pmll --store=s --json get n k", None, "pmll --store=s --json get s n k");
        check("pmll --budget 1MiB stats", Some("e"), "pmll --budget 1MiB stats e");
        check("pmll put n --text --store", Some("e"), "pmll put e n --text --store");
        check("pmll put n -- --store x", None, "pmll put n -- --store x");
        check("pmll config get budget", Some("e"), "pmll config get e budget");
        check("pmll completions bash", Some("e"), "pmll completions bash");
        check("pmll crash-test --dir d", Some("e"), "pmll crash-test --dir d");
        check("pmll demo --dir d", Some("e"), "pmll demo --dir d");
        check("pmll --help", Some("e"), "pmll --help");
    }

    #[test]
    fn json_is_seen_before_parsing() {
        let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(with_store(line("pmll get --json"), None).1.json);
        assert!(!with_store(line("pmll put d n --text --json"), None).1.json);
        assert!(with_store(line("pmll stats"), Some("e".into())).1.placed);
    }
}
