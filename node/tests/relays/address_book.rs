//! Tests of `strowger peer` as a process: the default book, exit codes, and the page.

use std::{fs, path::Path, process::Command};

use crate::STROWGER;

const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";

struct Ran {
    code: i32,
    out: String,
    error: String,
}

fn peer(home: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(STROWGER);
    command.arg("peer").args(arguments).env_remove("XDG_CONFIG_HOME").env("HOME", home);
    let ran = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: ran.status.code().unwrap(), out: text(ran.stdout), error: text(ran.stderr) }
}

#[test]
fn the_book_is_beside_the_other_files_of_the_user() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".config/strowger/peers.toml");
    let none = peer(home.path(), &["list"]);
    assert_eq!((none.code, none.error.as_str()), (0, ""));
    assert!(none.out.contains("does not exist yet"), "{}", none.out);
    assert!(!file.exists());
    let added = peer(home.path(), &["add", "alice", ALICE, "--label", "15"]);
    assert_eq!(added.code, 0, "{}", added.error);
    assert!(fs::read_to_string(&file).unwrap().contains("name = \"alice\""));
    assert!(peer(home.path(), &["list", "alice"]).out.contains("0000.0000.0000.0015"));
    let again = peer(home.path(), &["add", "alice", ALICE]);
    assert_eq!((again.code, again.out.as_str()), (2, ""));
    assert!(again.error.starts_with("strowger: ") && again.error.contains("--replace"));
    assert_eq!(peer(home.path(), &["remove", "alice"]).code, 0);
    assert_eq!(peer(home.path(), &["remove", "alice"]).code, 2);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(peer(home.path(), &["list"]).code, 3);
}

#[test]
fn without_a_home_the_book_must_be_named() {
    let mut command = Command::new(STROWGER);
    let ran = command.args(["peer", "list"]).env_clear().output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8(ran.stderr).unwrap().contains("--book FILE"));
}

/// The file and the commands of the page are valid, and the page's error is the command's.
#[test]
fn the_page_shows_what_the_command_does() {
    let home = tempfile::tempdir().unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/relay/address-book.md");
    let page = fs::read_to_string(page).unwrap();
    let book = home.path().join("peers.toml");
    let block = |begin: &str| {
        let rest = page.split(&format!("```{begin}\n")).nth(1).unwrap();
        rest.split("```").next().unwrap()
    };
    fs::write(&book, block("toml")).unwrap();
    let book_option = ["--book", book.to_str().unwrap()];
    let listed = peer(home.path(), &[&["list"][..], &book_option].concat());
    assert_eq!(listed.code, 0, "{}", listed.error);
    assert!(listed.out.contains("bob\n"), "{}", listed.out);
    fs::remove_file(&book).unwrap();

    for line in page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let line = line.replace("\\\n", " ");
        let words: Vec<&str> = line.split_whitespace().skip(2).collect();
        let ran = peer(home.path(), &[&words[..], &book_option].concat());
        assert_eq!(ran.code, 0, "{line}: {}", ran.error);
        if line.contains("alice") {
            let shown = ran.out.replace(book.to_str().unwrap(), "~/.config/strowger/peers.toml");
            assert_eq!(shown, block("text"));
        }
    }
    let faulty = ["add", "carol", ALICE, "--address", "/ip4/192.0.2.1/tcp/1", "--replace"];
    let ran = peer(home.path(), &[&faulty[..], &book_option].concat());
    assert!(page.contains(&ran.error), "{}", ran.error);
    assert!(ran.error.starts_with("strowger: "));
}
