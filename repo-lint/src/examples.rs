//! Checks that the code and commands in pages are those that the tests run.

use crate::{Faults, Repo};

/// The fields of `strowger demo --json` that the README must name.
const DEMO_FIELDS: [&str; 11] = [
    "ok",
    "balanced",
    "frames_per_s",
    "bits_per_s",
    "lost",
    "reordered",
    "frames_copied",
    "worker_allocations",
    "discards",
    "backend",
    "sealed",
];

/// The maximum number of lines of an embed example in a page, blank lines included.
const EMBED_LINES_MAX: usize = 25;

/// The code block of a page that follows this mark: `<!-- mark -->`.
fn block<'a>(page: &'a str, mark: &str) -> &'a str {
    let mark = format!("<!-- {mark} -->");
    let rest = page.split(&mark).nth(1).unwrap_or_else(|| panic!("no {mark} before a code block"));
    let code = rest.split("```").nth(1).expect("a code block follows the mark");
    code.split_once('\n').map_or("", |(_, code)| code)
}

/// The code and the commands of the README and of docs/embedding.md are those that the tests run.
pub fn pages_show_the_code_that_is_tested(repo: &Repo) -> Faults {
    let mut faults = Faults::new("make the page and the file equal");
    let readme = repo.read("README.md");
    for (page, mark, file, end) in [
        (readme.as_str(), "embed", "strowger/examples/embed.rs", "\ntype Answer"),
        (readme.as_str(), "echo", "strowger/examples/echo.rs", "\nfn serve"),
        (
            &repo.read("docs/embedding.md"),
            "embed tokio",
            "strowger/examples/embed_tokio.rs",
            "\ntype Answer",
        ),
    ] {
        let example = repo.read(file);
        // The page shows the function and its imports without the code that calls it.
        let code = example.split(end).next().unwrap_or_default();
        let code: Vec<&str> = code.lines().filter(|line| !line.starts_with("//!")).collect();
        let code = code.join("\n");
        let lines = code.trim().lines().count();
        faults.add_unless(lines <= EMBED_LINES_MAX, format!("{file}: {lines} lines"));
        let (mut shown, mut tested) = (block(page, mark).trim().lines(), code.trim().lines());
        loop {
            match (shown.next(), tested.next()) {
                (None, None) => break,
                (shown, tested) if shown != tested => {
                    faults.add(format!("{mark}: the page has {shown:?}, {file} has {tested:?}"));
                }
                _ => {}
            }
        }
    }
    for (mark, command) in [
        ("demo command", "cargo run --release -- demo"),
        ("test command", "cargo test --workspace"),
    ] {
        let shown = block(&readme, mark).trim();
        faults.add_unless(shown == command, format!("README.md, {mark}: {shown}"));
    }
    for folder in ["loom-tests", "fuzz"] {
        // .ci/run runs the first code block of these pages.
        let page = repo.read(&format!("{folder}/README.md"));
        let first = page.split("```").nth(1).unwrap_or_default();
        let command = format!("cargo test -p strowger-{folder}");
        let fault = format!("{folder}/README.md: the first code block does not have `{command}`");
        faults.add_unless(first.contains(&command), fault);
    }
    let missing = DEMO_FIELDS.iter().filter(|field| !readme.contains(&format!("`{field}`")));
    faults.extend(missing.map(|field| format!("README.md: the demo's field `{field}`")));
    faults
}
