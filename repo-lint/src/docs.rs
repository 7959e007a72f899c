//! Checks of the documents: links, named files, the list of pages, the glossary, decisions, and the
//! pages for operators.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{Faults, Repo, layout::CRATES, without_tests};

/// The targets of `[text](target)` in a page, without those in code blocks.
fn links(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors of a page's headings, as mdBook and forges spell them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Each link between pages leads to a file that exists and, if it has an anchor, to a heading of
/// that file.
pub fn links_between_pages_lead_somewhere(repo: &Repo) -> Faults {
    let mut faults = Faults::new("correct the link");
    for file in repo.markdown_files() {
        let page = repo.read(file);
        for link in links(&page) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(file).parent().unwrap_or(Path::new(""));
            let path = match target {
                "" => repo.root.join(file),
                target => repo.root.join(folder).join(target),
            };
            if !path.exists() {
                faults.add(format!("{file}: {link}"));
            } else if !anchor.is_empty() {
                let target = fs::read_to_string(&path).unwrap_or_default();
                let has_it = anchors(&target).contains(anchor);
                faults.add_unless(has_it, format!("{file}: {link}: no such heading"));
            }
        }
    }
    faults
}

/// Each file of a crate that a page names in code (`engine/src/limits.rs`) exists.
///
/// A page in a crate's folder may name files relative to that folder. The changelog may also name
/// files that no longer exist.
pub fn files_that_pages_name_exist(repo: &Repo) -> Faults {
    let mut faults = Faults::new("name the file where it is now");
    for page in repo.markdown_files().filter(|page| *page != "CHANGELOG.md") {
        let folder = Path::new(page).parent().unwrap_or(Path::new(""));
        let text = repo.read(page);
        let prose: String = text.split("```").step_by(2).collect();
        for name in prose.split('`').skip(1).step_by(2) {
            let first = name.split('/').next().unwrap_or_default();
            let is_path = name.ends_with(".rs")
                && (CRATES.contains(&first) || ["src", "tests", "examples"].contains(&first));
            let is_plain = !name.contains(|c: char| c.is_whitespace() || "*{".contains(c));
            if is_path && is_plain {
                let exists = repo.has(name) || repo.has(&folder.join(name).to_string_lossy());
                faults.add_unless(exists, format!("{page}: {name}"));
            }
        }
    }
    faults
}

/// docs/SUMMARY.md lists every page.
pub fn the_summary_lists_every_page(repo: &Repo) -> Faults {
    let mut faults = Faults::new("list the page in docs/SUMMARY.md");
    let summary = repo.read("docs/SUMMARY.md");
    let listed: BTreeSet<String> =
        links(&summary).into_iter().map(|page| format!("docs/{page}")).collect();
    let pages = repo.markdown_files().filter(|file| file.starts_with("docs/"));
    let missing = pages.filter(|page| *page != "docs/SUMMARY.md" && !listed.contains(*page));
    faults.extend(missing.map(str::to_owned));
    faults
}

/// docs/glossary.md explains the name of each module of the library crates.
pub fn every_module_has_its_word_in_the_glossary(repo: &Repo) -> Faults {
    let mut faults = Faults::new("put the word in docs/glossary.md, or use one that stands there");
    let glossary = repo.read("docs/glossary.md");
    let words: BTreeSet<&str> = glossary.split("**").skip(1).step_by(2).collect();
    for folder in ["wire", "frame", "crypto", "routing", "engine", "io-backends"] {
        let source = format!("{folder}/src/");
        for file in repo.files().filter_map(|file| file.strip_prefix(&source)) {
            let module = file.split(['/', '.']).next().unwrap_or_default();
            let is_explained = ["lib", "test_support"].contains(&module) || words.contains(module);
            faults.add_unless(is_explained, format!("{folder}: {module}"));
        }
    }
    faults
}

/// The pages for operators name each key of the configuration, each drop reason and each command.
pub fn operators_pages_name_every_key_drop_reason_and_command(repo: &Repo) -> Faults {
    let mut faults = Faults::new("the pages for operators name each of them");
    let reference = repo.read("docs/relay/reference.md");
    let counters = repo.read("docs/relay/counters.md");
    for line in repo.read("node/src/relay/config/sample.toml").lines() {
        let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") else { continue };
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_key && !reference.contains(&format!("`{key}`")) {
            faults.add(format!("docs/relay/reference.md: the key `{key}`"));
        }
    }
    let discards = repo.read("engine/src/discard.rs");
    for line in without_tests(&discards).lines() {
        let name = line.trim().strip_suffix("\",").and_then(|line| line.split_once(" = \""));
        if let Some((_, name)) = name.filter(|(_, name)| !counters.contains(&format!("`{name}`"))) {
            faults.add(format!("docs/relay/counters.md: the reason `{name}`"));
        }
    }
    let main = repo.read("node/src/main.rs");
    let commands = main.split("enum Command {").nth(1).and_then(|rest| rest.split("\n}").next());
    for line in commands.expect("main.rs has the commands").lines() {
        let word: String = line.trim().chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let word = word.to_lowercase();
        let is_command = line.starts_with("    ") && line.trim().starts_with(char::is_uppercase);
        let is_named = reference.contains(&format!("strowger {word}"))
            || reference.contains(&format!("`{word}`"));
        faults.add_unless(
            !is_command || is_named,
            format!("docs/relay/reference.md: the command {word}"),
        );
    }
    faults
}

/// Decisions are numbered without gaps, and each has four parts.
pub fn decisions_are_numbered_and_say_what_was_measured(repo: &Repo) -> Faults {
    let mut faults = Faults::new("a decision has a number and four parts");
    let mut numbers = Vec::new();
    let decisions = repo.markdown_files().filter_map(|file| file.strip_prefix("docs/decisions/"));
    for file in decisions.filter(|file| *file != "README.md") {
        let page = repo.read(&format!("docs/decisions/{file}"));
        let number: usize = file.get(..4).and_then(|n| n.parse().ok()).unwrap_or(0);
        numbers.push(number);
        let begins_so = page.starts_with(&format!("# {number}. "));
        faults.add_unless(begins_so, format!("{file}: the title does not begin with its number"));
        for part in ["Context", "Decision", "Reason", "Measured"] {
            let has_it = page.contains(&format!("\n## {part}\n"));
            faults.add_unless(has_it, format!("{file}: no part \"{part}\""));
        }
    }
    let without_a_gap: Vec<usize> = (1..=numbers.len()).collect();
    faults.add_unless(numbers == without_a_gap, format!("numbers with a gap: {numbers:?}"));
    faults
}
