//! Records tests that cannot run on this machine. Each prints a line and is recorded, so that a run
//! can report the number of skipped tests and the reasons.
//!
//! The line goes to the process's standard error and not through the test harness, which hides the
//! output of tests that pass. Each run of cargo has its own record file, in the folder
//! `skipped-tests` of the target folder. The environment variable `STROWGER_SKIPPED` selects
//! another file. The test target `skipped` of this crate prints the summary.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

/// The environment variable that names the file of the record.
pub const RECORD_VARIABLE: &str = "STROWGER_SKIPPED";

/// Records that this test is skipped because the machine lacks a right or a tool. The caller must
/// then return.
///
/// # Panics
///
/// If the environment variable `CI` is set: the project's CI machines have all rights and tools.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "with CI set no test may be skipped: {reason}");
    record(Extent::Whole, reason);
}

/// Records that this test is skipped because the kernel lacks the feature under test, or the clone
/// of the repository lacks an earlier commit. The caller must then return.
pub fn unsupported(reason: &str) {
    record(Extent::Whole, reason);
}

/// Records that this test skips one case (a backend, an address family) and runs the others.
pub fn skip_case(case: &str, reason: &str) {
    record(Extent::Case, &format!("{case}: {reason}"));
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Whole,
    Case,
}

impl Extent {
    fn word(self) -> &'static str {
        match self {
            Self::Whole => "test",
            Self::Case => "case",
        }
    }
}

fn record(extent: Extent, reason: &str) {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let program = program();
    let thread = thread::current();
    let test = thread.name().unwrap_or("unnamed thread");
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !SAID.lock().unwrap().insert(format!("{test}\t{reason}")) {
        return;
    }
    let what = match extent {
        Extent::Whole => "SKIPPED",
        Extent::Case => "SKIPPED a case of",
    };
    // Write to the descriptor itself: the test harness captures the output of `eprintln!`.
    let _ = writeln!(io::stderr(), "{what} {program} {test}: {reason}");
    let written = record_file().and_then(|file| {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let line = format!("{}\t{program}\t{test}\t{reason}\n", extent.word());
        // A single write in append mode, so that lines of concurrent processes do not mix.
        fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
    });
    if let Err(error) = written {
        let _ = writeln!(io::stderr(), "the skipped test is not recorded: {error}");
    }
}

/// The test program's name, without the hash that cargo appends.
fn program() -> String {
    let exe = env::current_exe().unwrap_or_default();
    let name = exe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 => name.to_owned(),
        _ => name,
    }
}

fn record_file() -> io::Result<PathBuf> {
    if let Some(file) = env::var_os(RECORD_VARIABLE) {
        return Ok(file.into());
    }
    let exe = env::current_exe()?;
    // target/PROFILE/deps/PROGRAM
    let target = exe.ancestors().nth(3).unwrap_or(Path::new("."));
    let folder = target.join("skipped-tests");
    forget_ended_runs(&folder);
    Ok(folder.join(run()))
}

/// Identifies this run by a process ID and start time: those of the cargo process that started this
/// one, or of the parent process if there is no cargo.
fn run() -> String {
    let own = std::process::id();
    let mut id = parent(own).unwrap_or(own);
    let first = id;
    loop {
        let comm = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        if comm.starts_with("cargo") {
            break;
        }
        match parent(id) {
            Some(next) if next > 1 => id = next,
            _ => {
                id = first;
                break;
            }
        }
    }
    let started = stat_field(id, 22).unwrap_or_default();
    format!("{id}-{started}")
}

fn parent(id: u32) -> Option<u32> {
    stat_field(id, 4)?.parse().ok()
}

/// A field of /proc/ID/stat, numbered as in proc(5).
fn stat_field(id: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The command's name may contain spaces; the fields from the third on follow its parenthesis.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(number - 3).map(str::to_owned)
}

/// Removes the records of runs whose cargo has ended.
fn forget_ended_runs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_string_lossy();
        let id = id.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(id).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A summary of this run: the number of skipped tests, and the reasons.
pub fn summary() -> String {
    let text = record_file().and_then(fs::read_to_string).unwrap_or_default();
    summary_of(&text)
}

fn summary_of(record: &str) -> String {
    // The skipped tests by extent and reason. A test with the same reason twice counts once.
    let mut reasons: BTreeMap<(Extent, &str), BTreeSet<(&str, &str)>> = BTreeMap::new();
    for line in record.lines() {
        let mut fields = line.splitn(4, '\t');
        let mut next = || fields.next().unwrap_or_default();
        let (extent, program, test, reason) = (next(), next(), next(), next());
        let extent = if extent == Extent::Case.word() { Extent::Case } else { Extent::Whole };
        reasons.entry((extent, reason)).or_default().insert((program, test));
    }
    let mut text = String::new();
    for (extent, verb) in [(Extent::Whole, "skipped"), (Extent::Case, "run in part")] {
        let of_extent = || reasons.iter().filter(|((its, _), _)| *its == extent);
        let tests: BTreeSet<_> = of_extent().flat_map(|(_, tests)| tests).collect();
        if extent == Extent::Whole || !tests.is_empty() {
            let _ = writeln!(text, "{} {verb}", were(tests.len()));
        }
        for ((_, reason), tests) in of_extent() {
            let _ = writeln!(text, "    {reason} ({})", count(tests.len()));
        }
    }
    text
}

fn count(tests: usize) -> String {
    format!("{tests} test{}", if tests == 1 { "" } else { "s" })
}

fn were(tests: usize) -> String {
    format!("{} {}", count(tests), if tests == 1 { "was" } else { "were" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_tests_by_reason() {
        assert_eq!(summary_of(""), "0 tests were skipped\n");
        let record = "test\tio\ta\tno rights\ntest\tio\tb\tno rights\ntest\tnode\ta\tno valgrind\n\
                      case\tio\tc\tio_uring: ENOSYS\ncase\tio\tc\tio_uring: ENOSYS\n";
        assert_eq!(
            summary_of(record),
            "3 tests were skipped\n    no rights (2 tests)\n    no valgrind (1 test)\n\
             1 test was run in part\n    io_uring: ENOSYS (1 test)\n"
        );
    }
}
