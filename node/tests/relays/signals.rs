//! Signals to a relay. They either have no effect or end the relay in order: it sends a goodbye and
//! removes its sockets.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStderr, Command, Stdio},
};

use strowger_testkit::{eventually, harness::relay::*};

/// The command that starts a relay in this folder with this peer. `before` contains
/// the words in front of `strowger`, for example `sh -c`.
fn command(home: &Home, peer: &Home, before: &[&str]) -> Command {
    let dir = home.path().to_str().unwrap();
    let config = format!(
        "control.socket = \"{dir}/control\"\n\
         [identity]\nkey = \"{dir}/key\"\nnetwork = \"test\"\n\
         [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
         [[udp]]\naddress = \"{}\"\n\
         [[unix]]\nname = \"local\"\npath = \"{dir}/local\"\nslot = 4\n\
         [[peer]]\nname = \"far\"\nkey = \"{}\"\nslot = 2\naddress = \"{}\"\n",
        home.at, peer.key, peer.at
    );
    let file = home.file("relay.toml");
    fs::write(&file, config).unwrap();
    let words = [crate::STROWGER, "relay", "--config", file.to_str().unwrap()];
    // A relay leaves a signal ignored that was ignored at its start. Under nohup that is SIGHUP.
    let default = ["env", "--default-signal=HUP"];
    let mut words = default.iter().chain(before).copied().chain(words);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

struct Running<'h> {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    home: &'h Home,
}

impl<'h> Running<'h> {
    /// Starts a relay, and waits until its link to `far` is up.
    fn start(home: &'h Home, far: &Relay, before: &[&str]) -> Self {
        let mut child = command(home, &far.home, before).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = Self { child, lines, home };
        eventually("the link is up", || far.is_up().then_some(()));
        eventually("the link is up at this end, too", || running.is_up().then_some(()));
        running
    }

    fn is_up(&self) -> bool {
        self.home.file("control").exists()
            && self.home.ask(r#"{"show":"peers"}"#)["peers"][0]["up"] == true
    }

    fn kill(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Blocks until the relay logs a line that contains these words.
    fn says(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.next().expect("the relay logs another line").expect("text");
            if line.contains(words) {
                return line;
            }
        }
    }

    fn leaves_nothing(&self) {
        for socket in ["control", "local"] {
            assert!(!self.home.file(socket).exists(), "{socket}");
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn goodbyes(far: &Relay) -> usize {
    far.events("goodbye").len()
}

#[test]
fn a_signal_without_a_meaning_is_logged_and_no_link_minds() {
    let (near, there) = (Home::new(), Home::new());
    let far = there.start(&near.key, None, "");
    let mut relay = Running::start(&near, &far, &[]);
    for signal in ["HUP", "USR1", "USR2", "HUP"] {
        relay.kill(signal);
        let line = relay.says(&format!("info signal: relay: SIG{signal} is ignored"));
        assert!(signal != "HUP" || line.contains("restart the relay"), "{line}");
    }
    assert!(relay.is_up() && far.is_up() && goodbyes(&far) == 0);
    relay.kill("TERM");
    relay.says("info signal: relay: SIGTERM: the relay stops");
    let status = eventually("the relay ends", || relay.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    relay.leaves_nothing();
    eventually("the relay sent a goodbye", || (goodbyes(&far) == 1).then_some(()));
    far.stop();
}

/// The kernel and the parent process both send SIGHUP, as when an ssh connection breaks.
#[test]
fn a_relay_whose_terminal_closes_sends_goodbye_and_leaves_no_socket() {
    let (near, there) = (Home::new(), Home::new());
    let far = there.start(&near.key, None, "");
    let script = "import os,pty,sys\npid,terminal=pty.fork()\nif pid==0: os.execv(sys.argv[1],sys.argv[1:])\n\
                  import threading,signal\nsys.stdin.readline()\nos.close(terminal)\nos.kill(pid,signal.SIGHUP)\n\
                  print(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]),flush=True)";
    let mut python = command(&near, &there, &["python3", "-c", script]);
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the link is up", || far.is_up().then_some(()));
    python.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut line = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut line).unwrap();
    python.wait().unwrap();
    assert_eq!(line.trim(), "0", "it ended in order");
    for socket in ["control", "local"] {
        assert!(!near.file(socket).exists(), "{socket}");
    }
    eventually("the relay sent a goodbye", || (goodbyes(&far) == 1).then_some(()));
    far.stop();
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let (near, there) = (Home::new(), Home::new());
    let far = there.start(&near.key, None, "");
    let before = ["sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""];
    let mut relay = Running::start(&near, &far, &before);
    relay.kill("HUP");
    relay.kill("USR1");
    let line = relay.says("signal: relay: ");
    assert!(line.contains("SIGUSR1"), "{line}");
    assert!(relay.is_up());
}
