//! A relay under a CPU quota, in a control group that the test makes and removes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use strowger_testkit::{harness::relay::*, skip};

/// A control group. Dropping it removes the group.
struct Group(PathBuf);

impl Group {
    /// Makes a group with a quota of half a core, in cgroup v1 or v2, whichever the machine has.
    fn new() -> Option<Self> {
        let name = format!("strowger-quota-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/cpu").join(&name);
        if first.parent()?.join("cpu.cfs_quota_us").exists() && fs::create_dir(&first).is_ok() {
            let group = Self(first);
            fs::write(group.0.join("cpu.cfs_period_us"), "100000").ok()?;
            fs::write(group.0.join("cpu.cfs_quota_us"), "50000").ok()?;
            return Some(group);
        }
        let second = Path::new("/sys/fs/cgroup").join(&name);
        fs::create_dir(&second).ok()?;
        let group = Self(second);
        fs::write(group.0.join("cpu.max"), "50000 100000").ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn workers_auto_knows_the_quota_of_processor_time() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return skip("with one core there is one worker anyway");
    }
    let Some(group) = Group::new() else { return skip("no control group can be made here") };
    let home = Home::new();
    let dir = home.path().to_str().unwrap();
    for (workers, words) in [
        ("\"auto\"", "workers: 1, since control groups allow 0.50 of "),
        ("2", "warning: workers = 2, and control groups allow 0.50 cores' time"),
    ] {
        let file = home.file("relay.toml");
        let config = format!(
            "control.socket = \"{dir}/control\"\nswitch.workers = {workers}\n\
             [[unix]]\nname = \"local\"\npath = \"{dir}/local\"\n"
        );
        fs::write(&file, config).unwrap();
        let join = "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"";
        let mut relay = Command::new("sh");
        relay.args(["-c", join, "sh", group.0.to_str().unwrap()]);
        relay.args([crate::STROWGER, "relay", "--config", file.to_str().unwrap()]);
        let mut relay = KillOnDrop(relay.stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(relay.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let printed: Vec<String> = lines.take_while(|line| line != "ready").collect();
        assert!(printed.iter().any(|line| line.contains(words)), "{words}: {printed:#?}");
        let status = home.ask(r#"{"show":"status"}"#);
        assert_eq!(status["workers"], if workers == "2" { 2 } else { 1 });
    }
}
