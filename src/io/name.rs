//! Names of files, read the same way by all three disks.
//!
//! A name is `leaf` or `folder/leaf`. It never steps out of the store's directory: no empty part,
//! no `.` or `..`, no second folder, no NUL. The store makes its names itself, so a refusal here is
//! a bug above, told early.

use std::io;

/// Splits a file name into its folder (`""` is the store's directory) and its leaf.
pub(super) fn split(name: &str) -> io::Result<(&str, &str)> {
    let (folder, leaf) = name.rsplit_once('/').unwrap_or(("", name));
    if (!folder.is_empty() && !is_part(folder)) || (folder.is_empty() && name.starts_with('/')) {
        return Err(refuse(name));
    }
    if is_part(leaf) { Ok((folder, leaf)) } else { Err(refuse(name)) }
}

/// Checks the name of a folder; `""` is the store's directory.
pub(super) fn check_folder(folder: &str) -> io::Result<()> {
    if folder.is_empty() || is_part(folder) { Ok(()) } else { Err(refuse(folder)) }
}

/// Splits both names of a rename, which must stay in one folder: one `sync_dir` then covers it.
pub(super) fn split_rename<'a>(
    from: &'a str,
    to: &'a str,
) -> io::Result<(&'a str, &'a str, &'a str)> {
    let (folder, from_leaf) = split(from)?;
    let (to_folder, to_leaf) = split(to)?;
    if folder != to_folder {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("rename from {from:?} to {to:?} leaves its folder"),
        ));
    }
    Ok((folder, from_leaf, to_leaf))
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\', '\0'])
}

fn refuse(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name inside the store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(split("LOCK").unwrap(), ("", "LOCK"));
        assert_eq!(split("wal/1.wal").unwrap(), ("wal", "1.wal"));
        for bad in ["", "/", "/x", "x/", "..", "../x", "a/../x", "a/b/c", "./x", "a\0b", "a\\b"] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
        assert!(check_folder("").is_ok() && check_folder("wal").is_ok());
        assert!(check_folder("..").is_err() && check_folder("a/b").is_err());
        assert_eq!(split_rename("wal/a", "wal/b").unwrap(), ("wal", "a", "b"));
        assert!(split_rename("wal/a", "b").is_err());
    }
}
