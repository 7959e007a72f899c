//! Checks the requirements of docs/wire.md: their numbers, citations, tests and examples.
//!
//! A requirement is a list item that begins with its number: `- **W4-3**`. An item `- *Planned*
//! W4-3.` states a rule that is not a requirement yet: it can be cited and needs no test. A test
//! names its requirements in the comment directly above it (`/// wire.md: W4-3, W4-10.`), or in
//! Python in its docstring. Section "Tests" of the page lists the tests of each requirement. With
//! `STROWGER_UPDATE=1` in the environment, [`the_tests_of_requirements_are_listed`] writes that
//! list.

mod annotations;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::{self, Write as _},
    fs,
};

use annotations::{Annotation, in_python, in_rust};

use crate::{Faults, OWN_FOLDER, Repo};

const PAGE: &str = "docs/wire.md";

/// The lines before and after the generated table in the page.
const TABLE_BEGINS: &str = "<!-- generated: the tests of each requirement -->";
const TABLE_ENDS: &str = "<!-- end of the generated table -->";

/// The beginning of the line that lists unused numbers.
const UNUSED_BEGINS: &str = "Unused numbers:";

/// The environment variable that makes the check write the table.
const UPDATE_VARIABLE: &str = "STROWGER_UPDATE";

/// The number of a requirement: `W1.2-3` is the third of section 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    section: u16,
    /// The subsection; 0 if the subsections of the section share one sequence of numbers.
    subsection: u16,
    item: u16,
}

impl Number {
    /// Parses the text after the letter W: `1.2-3` or `4-10`.
    fn read(text: &str) -> Option<Self> {
        let (place, item) = text.split_once('-')?;
        let (section, subsection) = place.split_once('.').unwrap_or((place, "0"));
        Some(Self {
            section: section.parse().ok()?,
            subsection: subsection.parse().ok()?,
            item: item.parse().ok()?,
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subsection {
            0 => write!(f, "W{}-{}", self.section, self.item),
            subsection => write!(f, "W{}.{subsection}-{}", self.section, self.item),
        }
    }
}

/// All requirement numbers in a text, in order. Each is a letter W, the number of a section or
/// subsection, `-`, and a number.
fn numbers_in(text: &str) -> Vec<Number> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('W') {
        let is_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = &text[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && !".-".contains(c));
        let number = rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', '-']);
        if !is_word {
            found.extend(Number::read(number));
        }
    }
    found
}

/// The requirements of the page, and the numbers that are not in use.
struct Page {
    text: String,
    /// Each requirement, with its line.
    defined: Vec<(Number, usize)>,
    /// The numbers of planned rules.
    planned: BTreeSet<Number>,
    unused: BTreeSet<Number>,
}

impl Page {
    fn of(repo: &Repo) -> Self {
        let text = repo.read(PAGE);
        let mut page =
            Self { text, defined: Vec::new(), planned: BTreeSet::new(), unused: BTreeSet::new() };
        for (at, line) in page.text.lines().enumerate() {
            page.planned.extend(planned(line));
            if let Some(number) = definition(line) {
                page.defined.push((number, at + 1));
            }
            if let Some(list) = line.strip_prefix(UNUSED_BEGINS) {
                page.unused = numbers_and_ranges_in(list);
            }
        }
        page
    }

    fn numbers(&self) -> BTreeSet<Number> {
        self.defined.iter().map(|(number, _)| *number).collect()
    }

    /// The numbers of requirements and of planned rules.
    fn stated(&self) -> BTreeSet<Number> {
        self.numbers().union(&self.planned).copied().collect()
    }

    /// The names of the fenced blocks whose info string is `hex NAME`.
    fn examples(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("```hex "))
            .map(str::trim)
    }
}

/// The number of the requirement that this line defines.
fn definition(line: &str) -> Option<Number> {
    let bold = line.trim_start().strip_prefix("- **W")?;
    Number::read(bold.split("**").next()?)
}

/// The number of the planned rule that this line states.
fn planned(line: &str) -> Option<Number> {
    let rest = line.trim_start().strip_prefix("- *Planned* W")?;
    Number::read(rest.split('.').next()?)
}

/// The numbers in a list of numbers and ranges: `W3-11 to W3-20, W5-15.`
fn numbers_and_ranges_in(list: &str) -> BTreeSet<Number> {
    let mut unused = BTreeSet::new();
    for part in list.split(',') {
        let ends = numbers_in(part);
        if let (Some(first), Some(last)) = (ends.first(), ends.last()) {
            unused.extend((first.item..=last.item).map(|item| Number { item, ..*first }));
        }
    }
    unused
}

/// Each number is defined once, at the beginning of a list item of its section.
pub fn numbers_of_requirements_are_unique_and_in_their_section(repo: &Repo) -> Faults {
    let mut faults =
        Faults::new("a number stands for one requirement and never changes its meaning");
    let page = Page::of(repo);
    let mut seen = BTreeMap::new();
    for (number, line) in &page.defined {
        if let Some(first) = seen.insert(*number, *line) {
            faults.add(format!("{PAGE}:{line}: {number} is defined in line {first}, too"));
        }
        let is_used = !page.unused.contains(number);
        faults.add_unless(is_used, format!("{PAGE}:{line}: {number} is listed as unused"));
        let is_planned = page.planned.contains(number);
        faults.add_unless(!is_planned, format!("{PAGE}:{line}: {number} is planned, too"));
    }
    for number in page.planned.intersection(&page.unused) {
        faults.add(format!("{PAGE}: {number} is planned and listed as unused"));
    }
    let mut section = (0, 0);
    for (at, line) in page.text.lines().enumerate() {
        let place = format!("{PAGE}:{}", at + 1);
        if let Some(heading) = line.strip_prefix("##") {
            let number = heading.trim_start_matches('#').split_whitespace().next();
            let mut parts = number.into_iter().flat_map(|number| number.split('.'));
            let mut part = || parts.next().and_then(|part| part.parse().ok());
            match (part(), part()) {
                // A heading without a number does not begin a new section.
                (None, _) if heading.starts_with('#') => {}
                (first, second) => section = (first.unwrap_or(0), second.unwrap_or(0)),
            }
        }
        match definition(line) {
            Some(number) => {
                let wanted = if section.0 == 1 { section } else { (section.0, 0) };
                let is_there = (number.section, number.subsection) == wanted;
                faults.add_unless(is_there, format!("{place}: {number} is in another section"));
            }
            None if line.contains("**W") && !numbers_in(line).is_empty() => {
                faults.add(format!("{place}: a bold number that does not begin a list item"));
            }
            None => {}
        }
    }
    faults
}

/// Numbers that are not in use are listed, so that they are not assigned a second time.
pub fn numbers_without_requirements_are_listed(repo: &Repo) -> Faults {
    let mut faults =
        Faults::new("list it in section Tests of docs/wire.md, at \"Unused numbers:\"");
    let page = Page::of(repo);
    let numbers = page.stated();
    for last in &numbers {
        for item in 1..last.item {
            let number = Number { item, ..*last };
            let is_known = numbers.contains(&number) || page.unused.contains(&number);
            faults.add_unless(is_known, format!("{number} is not defined"));
        }
    }
    faults.found.sort();
    faults
}

/// Each requirement that code or a page cites exists.
pub fn cited_requirements_exist(repo: &Repo) -> Faults {
    let mut faults = Faults::new("docs/wire.md has no such requirement");
    let numbers = Page::of(repo).stated();
    let is_citing = |file: &&str| [".rs", ".md", ".py"].iter().any(|end| file.ends_with(end));
    for file in repo.files().filter(is_citing).filter(|file| !file.starts_with(OWN_FOLDER)) {
        for (at, line) in repo.read(file).lines().enumerate() {
            if file == PAGE && line.starts_with(UNUSED_BEGINS) {
                continue;
            }
            let unknown = numbers_in(line).into_iter().filter(|number| !numbers.contains(number));
            faults.extend(unknown.map(|number| format!("{file}:{}: {number}", at + 1)));
        }
    }
    faults
}

/// All annotations in the repository.
fn annotations(repo: &Repo) -> Vec<Annotation> {
    let mut found = Vec::new();
    for file in repo.files().filter(|file| !file.starts_with(OWN_FOLDER)) {
        if file.ends_with(".rs") {
            found.extend(in_rust(file, &repo.read(file)));
        } else if file.ends_with(".py") {
            found.extend(in_python(file, &repo.read(file)));
        }
    }
    found
}

/// Each annotation stands directly above a Rust test or in the docstring of a Python test, and
/// lists requirements that exist.
pub fn annotations_name_requirements_above_tests(repo: &Repo) -> Faults {
    let mut faults = Faults::new("write `/// wire.md: W4-3, W4-10.` directly above the test");
    let page = Page::of(repo);
    let numbers = page.numbers();
    for Annotation { place, test, named } in annotations(repo) {
        if let Err(why) = test {
            faults.add(format!("{place}: {why}"));
        }
        match named {
            Err(why) => faults.add(format!("{place}: {why}")),
            Ok(named) => {
                let unknown = named.into_iter().filter(|number| !numbers.contains(number));
                faults.extend(unknown.map(|number| match page.planned.contains(&number) {
                    true => format!("{place}: {number} is planned: write **{number}** in {PAGE}"),
                    false => format!("{place}: no requirement {number}"),
                }));
            }
        }
    }
    faults
}

/// The tests of each requirement that has one.
fn tests_of_requirements(repo: &Repo) -> BTreeMap<Number, BTreeSet<String>> {
    let mut tests: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for annotation in annotations(repo) {
        let (Ok(test), Ok(named)) = (annotation.test, annotation.named) else { continue };
        for number in named {
            tests.entry(number).or_default().insert(test.clone());
        }
    }
    tests
}

/// Each requirement has a test.
pub fn requirements_have_tests(repo: &Repo) -> Faults {
    let mut faults = Faults::new(
        "write a test that fails if the requirement is violated, and name the requirement above it",
    );
    let (page, tests) = (Page::of(repo), tests_of_requirements(repo));
    let without = page.numbers().into_iter().filter(|number| !tests.contains_key(number));
    faults.extend(without.map(|number| format!("{number} has no test")));
    faults
}

/// Each example of the page is read by a Rust test.
pub fn examples_of_requirements_are_read_by_tests(repo: &Repo) -> Faults {
    let mut faults =
        Faults::new("compare it with the code: strowger_testkit::wire_md::assert_example");
    let page = Page::of(repo);
    let readers: String = repo
        .rust_files()
        .filter(|(file, code)| !file.starts_with(OWN_FOLDER) && code.contains("wire_md"))
        .map(|(_, code)| code)
        .collect();
    let unread = page.examples().filter(|name| !readers.contains(&format!("\"{name}\"")));
    faults.extend(unread.map(|name| format!("{PAGE}: the example {name:?}")));
    faults
}

/// The table in section Tests agrees with the annotations.
pub fn the_tests_of_requirements_are_listed(repo: &Repo) -> Faults {
    list_tests(repo, env::var_os(UPDATE_VARIABLE).is_some())
}

/// Compares the table with the annotations. If they differ and `updates` is set, writes the table.
fn list_tests(repo: &Repo, updates: bool) -> Faults {
    let mut faults =
        Faults::new("run: STROWGER_UPDATE=1 cargo test -p strowger-repo-lint requirements");
    let page = Page::of(repo);
    let Some((before, rest)) = page.text.split_once(TABLE_BEGINS) else {
        faults.add(format!("{PAGE} has no line {TABLE_BEGINS}"));
        return faults;
    };
    let Some((listed, after)) = rest.split_once(TABLE_ENDS) else {
        faults.add(format!("{PAGE} has no line {TABLE_ENDS}"));
        return faults;
    };
    let table = format!("\n\n{}\n", table(&page, &tests_of_requirements(repo)));
    if table != listed {
        if updates {
            let page = format!("{before}{TABLE_BEGINS}{table}{TABLE_ENDS}{after}");
            fs::write(repo.root.join(PAGE), page).expect("the page can be written");
        } else {
            faults.add(format!("{PAGE}, section Tests: the table is stale"));
        }
    }
    faults
}

fn table(page: &Page, tests: &BTreeMap<Number, BTreeSet<String>>) -> String {
    let mut table = String::from("| requirement | tests |\n|---|---|\n");
    for number in page.numbers() {
        let cell: Vec<String> =
            tests.get(&number).into_iter().flatten().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(table, "| {number} | {} |", cell.join(", "));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::read(text).unwrap()
    }

    #[test]
    fn numbers_are_found_in_text() {
        let text = "W1.2-3, (W4-10). NoW4-1, W4-, W-3, W14-2: W65535-1 W65536-1";
        let wanted = ["1.2-3", "4-10", "14-2", "65535-1"].map(number);
        assert_eq!(numbers_in(text), wanted);
        assert_eq!(number("1.2-3").to_string(), "W1.2-3");
        assert_eq!(number("4-10").to_string(), "W4-10");
    }

    #[test]
    fn a_definition_begins_a_list_item() {
        assert_eq!(definition("- **W4-3** Every"), Some(number("4-3")));
        assert_eq!(definition("  - **W4-3** Every"), Some(number("4-3")));
        assert_eq!(definition("see **W4-3**"), None);
        assert_eq!(definition("- W4-3"), None);
    }

    #[test]
    fn a_planned_rule_is_no_definition() {
        assert_eq!(planned("- *Planned* W4-3. Every"), Some(number("4-3")));
        assert_eq!(definition("- *Planned* W4-3. Every"), None);
        assert_eq!(planned("- *Planned* (4.2). Every"), None);
        assert_eq!(planned("- **W4-3** Every"), None);
    }

    #[test]
    fn unused_numbers_are_listed_with_ranges() {
        let unused = numbers_and_ranges_in(" W3-11 to W3-13, W5-15.");
        let wanted = ["3-11", "3-12", "3-13", "5-15"].map(number);
        assert_eq!(unused.into_iter().collect::<Vec<_>>(), wanted);
    }

    /// A repository with these files, in a folder that is removed when the fixture is dropped.
    struct Fixture(Repo);

    impl Fixture {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = format!("strowger-requirements-{name}-{}", std::process::id());
            let root = env::temp_dir().join(folder);
            for (file, text) in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let files = files.iter().map(|(file, _)| (*file).to_owned()).collect();
            Self(Repo { root, files, packages: std::sync::OnceLock::new() })
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    const TEXT: &str = "\
## 4. Handshake

- **W4-1** One.
- **W4-2** Two.

### Below a heading without a number

- **W4-4** Four.
- *Planned* W4-5. Five.

```hex one
00
```

```hex two
01
```

## 14. Tests

Unused numbers: W4-3.

<!-- generated: the tests of each requirement -->

| requirement | tests |
|---|---|
| W4-1 | `crypto::ik::a_case`, `interop::test_ik::test_a_case` |
| W4-2 | `crypto::ik::a_case` |
| W4-4 | `crypto::ik::a_case` |

<!-- end of the generated table -->
";

    const RUST: &str = "\
//! About W4-1 and W4-5.
use wire_md::example;
/// wire.md: W4-1, W4-2, W4-4.
#[test]
fn a_case() { example(\"one\"); example(\"two\"); }
";

    const PYTHON: &str = "def test_a_case():\n    \"\"\"wire.md: W4-1.\"\"\"\n";

    /// The findings of all checks after one text is replaced.
    fn found(name: &str, replaced: [&str; 2]) -> Vec<String> {
        let with = |text: &str| text.replace(replaced[0], replaced[1]);
        let (page, rust, python) = (with(TEXT), with(RUST), with(PYTHON));
        let files = [
            (PAGE, page.as_str()),
            ("crypto/src/ik.rs", &rust),
            ("interop/tests/test_ik.py", &python),
        ];
        let repo = Fixture::new(name, &files);
        let checks: [fn(&Repo) -> Faults; 7] = [
            numbers_of_requirements_are_unique_and_in_their_section,
            numbers_without_requirements_are_listed,
            cited_requirements_exist,
            annotations_name_requirements_above_tests,
            requirements_have_tests,
            examples_of_requirements_are_read_by_tests,
            |repo: &Repo| list_tests(repo, false),
        ];
        checks.iter().flat_map(|check| check(&repo.0).found).collect()
    }

    #[test]
    fn a_stale_table_is_written_again() {
        let stale = TEXT.replace("| W4-2 | `crypto::ik::a_case` |\n", "");
        let files =
            [(PAGE, stale.as_str()), ("crypto/src/ik.rs", RUST), ("interop/test_ik.py", PYTHON)];
        let repo = Fixture::new("stale", &files);
        assert_eq!(list_tests(&repo.0, false).found.len(), 1);
        list_tests(&repo.0, true).assert_none();
        assert_eq!(repo.0.read(PAGE), TEXT);
    }

    #[test]
    fn each_fault_is_found() {
        assert_eq!(found("none", ["", ""]), Vec::<String>::new());
        let cases: [([&str; 2], &[&str]); 15] = [
            (["W4-2** Two", "W4-1** Two"], &["W4-1 is defined in line 3, too", "W4-2"]),
            (["W4-2** Two", "W5-2** Two"], &["W5-2 is in another section", "no test"]),
            (["- **W4-2** Two", "Two: **W4-2**"], &["does not begin a list item", "W4-2"]),
            (["numbers: W4-3", "numbers: W4-9"], &["W4-3 is not defined"]),
            (["numbers: W4-3", "numbers: W4-1 to W4-3"], &["W4-1 is listed as unused"]),
            (["About W4-1 and", "About W4-3 and"], &["crypto/src/ik.rs:1: W4-3"]),
            (["wire.md: W4-1.", "wire.md: W4-8."], &["test_ik.py:2: no requirement W4-8"]),
            (["wire.md: W4-1.", "wire.md: W4-5."], &["W4-5 is planned: write **W4-5**"]),
            (["*Planned* W4-5", "*Planned* W4-4"], &["W4-4 is planned, too", "rs:1: W4-5"]),
            (["numbers: W4-3", "numbers: W4-3, W4-5"], &["W4-5 is planned and listed"]),
            (["#[test]", "#[inline]"], &["ik.rs:3: no #[test] follows", "W4-2 has no test"]),
            (["W4-2, W4-4.", "W4-4."], &["W4-2 has no test", "the table is stale"]),
            (["W4-1, W4-2", "W4-1 to W4-2"], &["the list must be numbers", "W4-4 has no test"]),
            (["example(\"two\")", "example(\"one\")"], &["the example \"two\""]),
            (["`, `interop::test_ik::test_a_case`", "`"], &["the table is stale"]),
        ];
        for (number, (replaced, wanted)) in cases.into_iter().enumerate() {
            let found = found(&number.to_string(), replaced);
            for wanted in wanted {
                let is_found = found.iter().any(|fault| fault.contains(wanted));
                assert!(is_found, "{replaced:?}: {wanted:?} is not in {found:#?}");
            }
        }
    }
}
