//! The lines that a relay writes to standard error. A relay is not delayed if they are not read.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use strowger_testkit::{DEADLINE, eventually, harness::relay::*};

/// The command that starts a relay in this folder, with `peer` as its only peer.
fn command(home: &Home, peer: &Home) -> Command {
    let dir = home.path().to_str().unwrap();
    let config = format!(
        "control.socket = \"{dir}/control\"\n\
         [identity]\nkey = \"{dir}/key\"\nnetwork = \"test\"\n\
         [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
         [[udp]]\naddress = \"{}\"\n\
         [[peer]]\nname = \"far\"\nkey = \"{}\"\nslot = 2\naddress = \"{}\"\n",
        home.at, peer.key, peer.at
    );
    let file = home.file("relay.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(crate::STROWGER);
    command.args(["relay", "--config", file.to_str().unwrap()]);
    command
}

fn far(home: &Arc<Home>, near: &Home) -> Relay {
    home.start(&near.key, None, "")
}

#[test]
fn an_operator_reads_on_standard_error_when_a_link_is_up_and_when_it_is_down() {
    let (near, there) = (Home::new(), Home::new());
    let mut relay = KillOnDrop(
        command(&near, &there).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(),
    );
    let (send, lines) = mpsc::channel();
    let stderr = BufReader::new(relay.0.stderr.take().unwrap());
    thread::spawn(move || {
        stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    let next = |word: &str| loop {
        let line = lines.recv_timeout(DEADLINE).expect("the relay writes another line");
        if line.contains(word) {
            return line;
        }
    };
    let far = far(&there, &near);
    let up = next(" link_up: ");
    assert!(up.contains("info link_up: slot 2 \"far\": "), "{up}");
    let time = up.split(' ').next().unwrap();
    let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000Z", "RFC 3339");
    assert!(!time.starts_with("1970"), "the wall clock");
    // A relay says goodbye only on links that are up on its own side.
    eventually("the link is up at the far relay, too", || far.is_up().then_some(()));
    far.stop();
    let goodbye = next(" goodbye: ");
    assert!(goodbye.contains("warning goodbye: slot 2 \"far\": ") && goodbye.contains("code 1"));
    let down = next(" link_down: ");
    assert!(down.contains("warning link_down: slot 2 \"far\": "), "{down}");
}

#[test]
fn a_relay_whose_output_is_not_read_keeps_running() {
    let (near, there) = (Home::new(), Home::new());
    let mut command = command(&near, &there);
    let mut relay =
        KillOnDrop(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    // Close both pipes before the relay writes the last lines of its start.
    drop((relay.0.stdout.take(), relay.0.stderr.take()));
    eventually("it serves its control socket", || near.file("control").exists().then_some(()));
    let far = far(&there, &near);
    eventually("the link is up", || {
        (far.is_up() && near.ask(r#"{"show":"peers"}"#)["peers"][0]["up"] == true).then_some(())
    });
    let kill = format!("kill -TERM {}", relay.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = eventually("the relay ends", || relay.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
    far.stop();
}

/// The unit test `a_standard_error_without_reader_...` tests that no thread waits for the reader.
/// This test shows it for a running relay.
#[test]
fn a_relay_whose_standard_error_is_full_keeps_its_links() {
    let (near, there) = (Home::new(), Home::new());
    let filler = "import os,fcntl,sys; r,w=os.pipe(); fcntl.fcntl(w,1031,4096); os.write(w,b'x'*4096); \
                  os.set_inheritable(r,True); os.dup2(w,2); os.execv(sys.argv[1],sys.argv[1:])";
    let relay = command(&near, &there);
    let mut full = Command::new("python3");
    full.args(["-c", filler]).arg(relay.get_program()).args(relay.get_args()).stdout(Stdio::null());
    let _relay = KillOnDrop(full.spawn().expect("python3 runs"));
    eventually("it serves its control socket", || near.file("control").exists().then_some(()));
    // The pipe is already full. Each start of the other end makes the relay log more lines.
    for _ in 0..2 {
        let far = far(&there, &near);
        eventually("the link is up", || far.is_up().then_some(()));
        far.stop();
    }
    let far = far(&there, &near);
    until_up([&far, &far]);
    assert_eq!(near.ask(r#"{"show":"peers"}"#)["peers"][0]["name"], "far");
}
