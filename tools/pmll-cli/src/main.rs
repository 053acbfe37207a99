//! The `pmll` command: memory stores from a shell.
//!
//! It parses the line, runs one command and turns its outcome into an exit code. Everything it
//! does goes through the public interface of the `pmll` crate; it knows nothing of the files.
//! Results go to stdout, everything else to stderr; payloads are never logged.

mod cli;
mod cmd_collections;
mod cmd_compress;
mod cmd_crash_test;
mod cmd_delete;
mod cmd_doctor;
mod cmd_eval;
mod cmd_export;
mod cmd_get;
mod cmd_import;
mod cmd_list;
mod cmd_put;
mod cmd_salvage;
mod cmd_search;
mod cmd_store;
mod demo;
mod open;
mod record;
mod sort;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use pmll_cli::{output, render};

use clap::error::ErrorKind as Usage;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Glance, with_store};
use crate::open::Context;
use crate::output::{Failure, Outcome, Voice, colour};

fn main() -> ExitCode {
    let (line, glance) = with_store(std::env::args_os().collect(), std::env::var_os("PMLL_STORE"));
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &glance),
    };
    log_to_stderr(cli.globals.json);
    let voice = Voice { json: cli.globals.json, quiet: cli.globals.quiet };
    let context = Context { voice, budget: cli.globals.budget };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(voice.json),
    }
}

fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Init(args) => cmd_store::init(&args, context),
        Command::Put(args) => cmd_put::run(&args, context),
        Command::Get(args) => cmd_get::get(&args, context),
        Command::List(args) => cmd_list::list(&args, context),
        Command::Count(args) => cmd_list::count(&args, context),
        Command::Search(args) => cmd_search::run(&args, context),
        Command::Delete(args) => cmd_delete::run(&args, context),
        Command::Touch(args) => cmd_get::touch(&args.keys, context),
        Command::Pin(args) => cmd_get::pin(&args.keys, true, context),
        Command::Unpin(args) => cmd_get::pin(&args.keys, false, context),
        Command::Collections(args) => cmd_collections::collections(&args, context),
        Command::Drop(args) => cmd_collections::drop(&args, context),
        Command::Import(args) => cmd_import::run(args, context),
        Command::Export(args) => cmd_export::run(&args, context),
        Command::Eval(args) => cmd_eval::run(&args, context),
        Command::Config(args) => cmd_collections::config(&args, context),
        Command::Checkpoint(args) => cmd_store::checkpoint(&args, context),
        Command::Compress(args) => cmd_compress::compress(&args, context),
        Command::Why(args) => cmd_compress::why(&args, context),
        Command::Vacuum(args) => cmd_store::vacuum(&args, context),
        Command::Verify(args) => cmd_store::verify(&args, context),
        Command::Salvage(args) => cmd_salvage::run(&args, context),
        Command::Stats(args) => cmd_store::stats(&args, context),
        Command::Doctor(args) => cmd_doctor::doctor(&args, context),
        Command::Demo(args) => demo::run(&args, context),
        Command::DemoWriter(args) => demo::run_writer(&args),
        Command::CrashTest(args) => cmd_crash_test::run(&args, context),
        Command::CrashTestWriter(args) => cmd_crash_test::run_writer(&args),
        Command::Completions(args) => cmd_doctor::completions(&args),
    }
}

/// A line that cannot be parsed, or a request for help.
fn usage(error: &clap::Error, glance: &Glance) -> ExitCode {
    if matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion) || !glance.json {
        // Fails only when stdout or stderr is gone.
        let _ = error.print();
        if glance.placed && error.use_stderr() {
            eprintln!("\nnote: --store or PMLL_STORE is set, so DIR is left out");
        }
        return ExitCode::from(if error.use_stderr() { output::code::USAGE } else { 0 });
    }
    let text = error.render().to_string();
    let message = text.split("\n\nUsage:").next().unwrap_or_default();
    let message = message.trim().trim_start_matches("error: ").to_owned();
    let hint = if glance.placed {
        "--store or PMLL_STORE is set, so DIR is left out; see --help"
    } else {
        "see --help"
    };
    Failure::usage(message).hint(hint).report(true)
}

/// Logs what `PMLL_LOG` asks for. Unasked, people see warnings of the store and programs nothing:
/// with `--json`, stderr holds errors alone.
fn log_to_stderr(json: bool) {
    let unasked = if json { "off" } else { "warn" };
    let filter = match std::env::var("PMLL_LOG") {
        Ok(asked) if !asked.is_empty() => EnvFilter::new(asked),
        _ => EnvFilter::new(unasked),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour() && std::io::stderr().is_terminal())
        .init();
}
