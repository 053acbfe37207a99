//! What the command says and how it ends: results on stdout, talk and errors on stderr, exit codes.
//!
//! With `--json` every command prints one stable object (lists print one object a line), and an
//! error is one object `{"error":{"kind","message","hint"}}` on stderr. Without it, text for people;
//! text from a store is shown without control characters, so that it cannot drive the terminal.
//! A reader that goes away (`| head`) is a normal end.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::fault::Fault;
use pmll::ErrorKind;
use serde_json::{Value, json};

/// How a command ends.
pub type Outcome = Result<(), Failure>;

/// Exit codes, as `pmll --help` documents them.
pub mod code {
    /// No such store, collection, key or setting.
    pub const NOT_FOUND: u8 = 1;
    /// Wrong command line.
    pub const USAGE: u8 = 2;
    /// Invalid value or input file.
    pub const INVALID: u8 = 3;
    /// Another process has the store.
    pub const LOCKED: u8 = 4;
    /// Damaged files.
    pub const CORRUPT: u8 = 5;
    /// No room, or the operating system refused.
    pub const FULL_OR_IO: u8 = 6;
    /// Files of another version.
    pub const VERSION: u8 = 7;
    /// A bug of the program.
    pub const BUG: u8 = 70;
    /// Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// Stable name of the kind.
    pub kind: &'static str,
    /// What happened, and where.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Failure {
    fn new(code: u8, kind: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, kind, message: message.into(), hint: None }
    }

    /// There is no such store, collection, key or setting.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(code::NOT_FOUND, "not_found", message)
    }

    /// The command line does not make sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(code::USAGE, "usage", message)
    }

    /// A value or an input file is wrong.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(code::INVALID, "invalid", message)
    }

    /// Files of the store are damaged.
    pub fn corrupt(message: impl Into<String>) -> Failure {
        Failure::new(code::CORRUPT, "corrupt", message)
    }

    /// Ctrl-C.
    pub fn interrupted(message: impl Into<String>) -> Failure {
        Failure::new(code::INTERRUPTED, "interrupted", message)
    }

    /// A bug of this program.
    pub fn bug(message: impl Into<String>) -> Failure {
        Failure::new(code::BUG, "internal", message)
    }

    /// An operating-system error met while doing `what`.
    pub fn io(what: &str, source: &io::Error) -> Failure {
        Failure::new(code::FULL_OR_IO, "io", format!("cannot {what}: {source}"))
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the place in front of the message.
    #[must_use]
    pub fn at(mut self, place: impl std::fmt::Display) -> Failure {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The reader of stdout went away.
    fn is_closed_pipe(&self) -> bool {
        self.kind == "pipe"
    }

    /// Says it on stderr and gives the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if self.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        let mut stderr = io::stderr().lock();
        // Nothing is left to be done when stderr is gone as well.
        let _ = if json {
            let error = json!({"kind": self.kind, "message": self.message, "hint": self.hint});
            writeln!(stderr, "{}", json!({ "error": error }))
        } else {
            let (red, plain) =
                if colour() && stderr.is_terminal() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
            let hint = self.hint.as_ref().map_or(String::new(), |h| format!("\nhint: {h}"));
            writeln!(stderr, "{red}error{plain}: {}{hint}", self.message)
        };
        ExitCode::from(self.code)
    }
}

impl From<pmll::Error> for Failure {
    fn from(error: pmll::Error) -> Failure {
        let kind = error.kind();
        let code = match kind {
            ErrorKind::NotFound => code::NOT_FOUND,
            ErrorKind::Invalid | ErrorKind::Exists | ErrorKind::ReadOnly => code::INVALID,
            ErrorKind::Locked => code::LOCKED,
            ErrorKind::Corrupt => code::CORRUPT,
            ErrorKind::Version => code::VERSION,
            ErrorKind::Internal => code::BUG,
            _ => code::FULL_OR_IO,
        };
        let hint = match kind {
            ErrorKind::Locked => "wait until the other process closes the store, or end it",
            ErrorKind::Corrupt => {
                "`pmll verify` shows every damaged place, `pmll salvage` copies what is whole"
            }
            ErrorKind::Version => "use the version of pmll that wrote the store",
            ErrorKind::Full => "free disk space, or give a larger --budget, and run it again",
            ErrorKind::Poisoned => "a write to the disk failed; check the disk, then run it again",
            ErrorKind::Internal => "this is a bug in pmll; please report it with the message",
            _ => "",
        };
        let failure = Failure::new(code, kind.name(), error.to_string());
        if hint.is_empty() { failure } else { failure.hint(hint) }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        let code = match fault {
            Fault::Invalid(_) => return Failure::invalid(fault.to_string()),
            Fault::Io(..) => code::FULL_OR_IO,
        };
        Failure::new(code, "io", fault.to_string())
    }
}

/// Only writing to stdout gives a bare `io::Error` in this program.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(0, "pipe", "the reader of stdout went away");
        }
        Failure::io("write to stdout", &error)
    }
}

/// Whether colour may be used at all: `NO_COLOR` set to anything but nothing forbids it.
pub fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// What the global options say about output.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// One JSON object instead of text.
    pub json: bool,
    /// No remarks and no bars.
    pub quiet: bool,
}

impl Voice {
    /// One result: an object, or the text for people.
    pub fn say(self, object: &Value, text: impl FnOnce() -> String) -> Outcome {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{object}")?;
        } else {
            let text = text();
            if !text.is_empty() {
                writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
            }
        }
        Ok(stdout.flush()?)
    }

    /// A remark on stderr; with `--json` there is none, so that stderr holds errors alone.
    pub fn note(self, text: &str) {
        if !self.json && !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A warning on stderr, for people; with `--json` the object says it.
    pub fn warn(self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr(), "warning: {text}");
        }
    }

    /// A progress bar, on a terminal only. Without a known end it counts.
    pub fn bar(self, total: Option<u64>, what: &str) -> indicatif::ProgressBar {
        if self.json || self.quiet || !io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (
                indicatif::ProgressBar::new(total),
                "{msg} {bar:30} {human_pos}/{human_len} {per_sec} {eta}",
            ),
            None => (indicatif::ProgressBar::no_length(), "{msg} {spinner} {human_pos} {per_sec}"),
        };
        let bar = bar.with_message(what.to_owned());
        match indicatif::ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Text of a store for people: one line, no control characters, cut to `width` characters.
pub fn one_line(text: &str, width: usize) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at >= width {
            out.push_str("...");
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

/// Rows in columns, two spaces apart, the last column as long as it is.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\x1b[31mb\nc", 80), "a [31mb c");
        assert_eq!(one_line("abcdef", 3), "abc...");
    }

    #[test]
    fn columns_line_up() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("name", "x"), row("a", "yy")]), "name  x\na     yy\n");
    }

    #[test]
    fn every_kind_has_its_code() {
        for (kind, code) in [
            (ErrorKind::NotFound, 1),
            (ErrorKind::Invalid, 3),
            (ErrorKind::Exists, 3),
            (ErrorKind::Locked, 4),
            (ErrorKind::Corrupt, 5),
            (ErrorKind::Full, 6),
            (ErrorKind::Io, 6),
            (ErrorKind::Poisoned, 6),
            (ErrorKind::Version, 7),
        ] {
            let failure = Failure::from(pmll::Error::new(kind, "x"));
            assert_eq!((failure.code, failure.kind), (code, kind.name()));
        }
    }
}
