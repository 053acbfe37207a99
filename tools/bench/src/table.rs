//! Tables of medians over rounds.
//!
//! The ratio to pmll is taken round by round, from measurements that stand next to each other in
//! time, and its median is shown. A subject that failed in one round has no figures at all: an
//! answer that was wrong once is not a time.

use comfy_table::{Table, presets};

use crate::plan::{Group, Part, Subject};
use crate::report::{Report, Row};
use crate::times::median;

type Field = fn(&Report) -> Option<f64>;

const MIB: f64 = (1 << 20) as f64;

/// The table of a group, from all its rows.
pub fn table(group: &Group, rows: &[Row]) -> Table {
    let (main, is_rate, decimals, heads): (Field, bool, usize, &[&str]) = match group.part {
        Part::Search | Part::Filter => (
            |r| r.p50_us,
            false,
            1,
            &["recall", "p50 us", "min-max", "time / pmll", "p99 us", "RSS MiB", "disk MiB"],
        ),
        Part::Open => (
            |r| r.p50_us.map(|us| us / 1e3),
            false,
            2,
            &["ms", "min-max", "time / pmll", "disk MiB"],
        ),
        Part::Puts => {
            (|r| r.rate_per_s, true, 0, &["puts/s", "min-max", "rate / pmll", "p50 us", "p99 us"])
        }
        Part::Bulk => (
            |r| r.rate_per_s,
            true,
            0,
            &["rows/s", "min-max", "rate / pmll", "RSS MiB", "disk MiB"],
        ),
    };
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["subject"].iter().chain(heads).chain(&["note"]));
    for subject in &group.subjects {
        let mine: Vec<&Row> = of(rows, subject.name);
        let mut line = vec![subject.name.to_owned()];
        let error = mine.iter().find_map(|row| row.error.clone());
        for head in heads {
            let middle = |field: Field, decimals| shown(median(&values(&mine, field)), decimals);
            line.push(match *head {
                _ if error.is_some() => "-".to_owned(),
                "recall" => middle(|r| r.recall, 4),
                "min-max" => spread(&values(&mine, main), decimals),
                "time / pmll" | "rate / pmll" => shown(ratio(rows, subject, main), 2),
                "p99 us" => middle(|r| r.p99_us, 1),
                "p50 us" if is_rate => middle(|r| r.p50_us, 1),
                "RSS MiB" => middle(|r| r.resident_bytes.map(|b| b as f64 / MIB), 1),
                "disk MiB" => middle(|r| r.disk_bytes.map(|b| b as f64 / MIB), 1),
                _ => middle(main, decimals),
            });
        }
        let note = mine.last().and_then(|row| row.report.note.clone()).unwrap_or_default();
        line.push(error.map_or(note, |error| format!("ERROR: {error}")));
        table.add_row(line);
    }
    table
}

fn of<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.report.subject == name).collect()
}

fn values(rows: &[&Row], field: Field) -> Vec<f64> {
    rows.iter().filter_map(|row| field(&row.report)).collect()
}

/// Median over rounds of a subject's figure by that of what it is compared with.
fn ratio(rows: &[Row], subject: &Subject, field: Field) -> Option<f64> {
    let (mine, base) = (of(rows, subject.name), of(rows, subject.base));
    if mine.iter().chain(&base).any(|row| row.error.is_some()) {
        return None;
    }
    let by_round: Vec<f64> = mine
        .iter()
        .filter_map(|row| {
            let base = base.iter().find(|base| base.round == row.round)?;
            Some(field(&row.report)? / field(&base.report)?)
        })
        .collect();
    median(&by_round)
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn spread(values: &[f64], decimals: usize) -> String {
    let least = values.iter().copied().reduce(f64::min);
    let most = values.iter().copied().reduce(f64::max);
    format!("{}-{}", shown(least, decimals), shown(most, decimals))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::groups;

    fn row(round: u32, subject: &str, p50_us: f64) -> Row {
        let report = Report { p50_us: Some(p50_us), ..Report::new("search", subject) };
        Row { round, error: None, report }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let group = groups(Part::Search, &[100], true).remove(0);
        let subject = *group.subjects.iter().find(|s| s.name == "hnswlib-99").unwrap();
        // The machine was twice as slow in the second round, for both.
        let mut rows = vec![row(1, "pmll", 10.0), row(1, "hnswlib-99", 30.0)];
        rows.extend([row(2, "pmll", 20.0), row(2, "hnswlib-99", 60.0)]);
        assert_eq!(ratio(&rows, &subject, |r| r.p50_us), Some(3.0));
    }

    #[test]
    fn one_wrong_answer_takes_the_figures_away() {
        let group = groups(Part::Search, &[100], false).remove(0);
        let mut rows = vec![row(1, "pmll", 10.0), row(2, "pmll", 12.0)];
        assert!(table(&group, &rows).to_string().contains("12.0"));
        rows.push(Row { error: Some("recall 0.5".into()), ..row(3, "pmll", 1.0) });
        let text = table(&group, &rows).to_string();
        assert!(text.contains("ERROR: recall 0.5") && !text.contains("12.0"), "{text}");
    }
}
