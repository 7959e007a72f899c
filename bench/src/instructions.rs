//! Counts the instructions of one step with callgrind. The count does not depend on the load of the
//! machine. The example `icount`, which must have been built, runs in a separate process.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use strowger_bench_chain::chain::SWITCHES;

/// Packets in a round of `icount`: a full burst.
pub const BURST: u64 = strowger_frame::BURST_MAX as u64;

/// The numbers of rounds in two runs. The result is computed from the difference of the two counts,
/// so that one-time work is not included.
const ROUNDS: [u64; 2] = [40, 140];

/// Checks that valgrind is available.
///
/// # Errors
/// The reason why valgrind is not available.
pub fn valgrind() -> Result<(), String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("valgrind --version: {}", output.status)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("valgrind is not installed".to_owned())
        }
        Err(error) => Err(format!("valgrind: {error}")),
    }
}

/// Instructions per packet and switch, with packets of `size` bytes, counted over runs of the
/// example `icount` at this path.
///
/// # Errors
/// The reason why the instructions could not be counted.
pub fn per_step(icount: &Path, size: usize) -> Result<f64, String> {
    valgrind()?;
    let [few, many] = ROUNDS.map(|rounds| count(icount, size, rounds));
    let steps = (ROUNDS[1] - ROUNDS[0]) * BURST * SWITCHES as u64;
    let (few, many) = (few?, many?);
    let more = many.checked_sub(few).filter(|&more| more > 0);
    let more = more.ok_or("callgrind counted nothing: has `poll` been inlined?")?;
    Ok(more as f64 / steps as f64)
}

/// Like [`per_step`], with the `icount` that Cargo has placed in the folder `examples` beside this
/// program. Returns an error if there is none.
pub(crate) fn per_step_if_counted(size: usize) -> Result<f64, String> {
    let here = env::current_exe().map_err(|error| error.to_string())?;
    let icount = beside(&here).ok_or(
        "there is no examples/icount beside this program; build it with: \
         cargo build --release -p strowger-bench-chain --examples",
    )?;
    per_step(&icount, size)
}

fn beside(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    // The programs of tests and benches are one folder deeper.
    let icounts = [folder, folder.parent()?].map(|folder| folder.join("examples/icount"));
    icounts.into_iter().find(|icount| icount.is_file())
}

/// Instructions in `chain::poll` during one run.
fn count(icount: &Path, size: usize, rounds: u64) -> Result<u64, String> {
    let name = format!("strowger-icount-{}-{size}-{rounds}.out", std::process::id());
    let written = env::temp_dir().join(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=strowger_bench_chain::chain::poll"])
        .arg(format!("--callgrind-out-file={}", written.display()))
        .arg(icount)
        .args([rounds.to_string(), size.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let counted = fs::read_to_string(&written);
    let _ = fs::remove_file(&written);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("callgrind: {}\n{stderr}", output.status));
    }
    let counted = counted.map_err(|error| format!("callgrind's output: {error}"))?;
    total(&counted).ok_or_else(|| "callgrind's output has no total".to_owned())
}

/// The total in callgrind's output: a line `totals: N` or `summary: N`.
fn total(counted: &str) -> Option<u64> {
    let line = counted.lines().find_map(|line| {
        line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))
    })?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read() {
        assert_eq!(total("version: 1\nevents: Ir\ntotals: 12345\n"), Some(12_345));
        assert_eq!(total("version: 1\n"), None);
    }
}
