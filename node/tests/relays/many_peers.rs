//! The costs of a configuration check, a start and a stop grow linearly with the number of peers.
//! Valgrind counts instructions, so the result does not depend on time.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use strowger_testkit::{harness::relay::KillOnDrop, skip};

/// The maximum ratio of the costs for 2n peers to the costs for n peers. Linear growth gives at
/// most 2, quadratic growth up to 4. Costs that do not depend on the number of peers make the ratio
/// smaller.
const RATIO_MAX: f64 = 2.6;

fn config(dir: &Path, neighbours: usize) -> std::path::PathBuf {
    let shown = dir.to_str().unwrap();
    // The links are plain: with sealed ones, the handshakes would take most of the instructions.
    let mut text = format!(
        "control.socket = \"{shown}/control\"\n\
         [switch]\nscheme = \"811448c100\"\nslot_max = 4095\nstate = \"{shown}/state\"\n\
         [[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n"
    );
    for n in 0..neighbours {
        let (high, low) = (n / 250, 1 + n % 250);
        write!(text, "[[neighbour]]\nname = \"n{n}\"\naddress = \"127.77.{high}.{low}:7000\"\n")
            .unwrap();
    }
    let file = dir.join("relay.toml");
    fs::write(&file, text).unwrap();
    file
}

/// The command `strowger` under valgrind, which counts its instructions.
fn counted(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("valgrind");
    let out = format!("--callgrind-out-file={}/out", dir.display());
    command.args(["--tool=callgrind", &out]).arg(crate::STROWGER).args(arguments);
    command
}

/// The number of instructions of all threads together, as valgrind reported it in `dir`.
fn count(dir: &Path) -> f64 {
    let counted = fs::read_to_string(dir.join("out")).expect("it counts");
    let totals = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a sum");
    totals.trim().parse().unwrap()
}

/// The number of instructions that the command executes.
fn instructions(dir: &Path, arguments: &[&str]) -> f64 {
    let output = counted(dir, arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    count(dir)
}

/// The number of instructions that a relay executes if it is stopped as soon as it is ready.
fn instructions_of_a_life(dir: &Path, file: &Path) -> f64 {
    let mut command = counted(dir, &["relay", "--config", file.to_str().unwrap()]);
    let relay = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut relay = KillOnDrop(relay);
    let mut lines = BufReader::new(relay.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "ready"), "it starts");
    let kill = format!("kill -TERM {}", relay.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let last = lines.last().unwrap_or_default();
    assert!(relay.0.wait().unwrap().success(), "{last}");
    count(dir)
}

fn ratio(what: &str, counts: [usize; 2], of: impl Fn(usize) -> f64) {
    let [few, many] = counts.map(&of);
    let ratio = many / few;
    println!("{what}: {few} for {}, {many} for {}, ratio {ratio:.2}", counts[0], counts[1]);
    assert!(ratio < RATIO_MAX, "{what}: {ratio:.2}");
}

#[test]
fn a_start_and_an_end_cost_in_proportion_to_the_number_of_peers() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind counts the instructions, and is not here");
    }
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    ratio("a start and an end", [250, 500], |neighbours| {
        let _ = fs::remove_file(dir.join("state"));
        instructions_of_a_life(dir, &config(dir, neighbours))
    });
}

#[test]
fn a_check_of_the_configuration_costs_in_proportion_to_the_number_of_peers() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind counts the instructions, and is not here");
    }
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    ratio("config check", [500, 1_000], |count| {
        let file = config(dir, count);
        instructions(dir, &["config", "check", file.to_str().unwrap()])
    });
}
