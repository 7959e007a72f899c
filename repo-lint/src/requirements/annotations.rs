//! Finds annotations of tests: `wire.md: W4-3, W4-10` in the comment above a Rust test, or in the
//! docstring of a Python test.

use super::{Number, numbers_in};

/// The beginning of an annotation, without the letter of the first number.
const MARK: &str = "wire.md: ";

/// One annotation. The test and the list may be invalid.
#[derive(Debug)]
pub(super) struct Annotation {
    /// The file and the line.
    pub(super) place: String,
    /// The name of the test, or the reason why the annotation belongs to no test.
    pub(super) test: Result<String, &'static str>,
    /// The requirements, or the reason why the list cannot be read.
    pub(super) named: Result<Vec<Number>, &'static str>,
}

/// The text after `wire.md: ` in a line, if it begins with the letter W.
fn list_in(line: &str) -> Option<&str> {
    let (_, list) = line.split_once(MARK)?;
    list.starts_with('W').then_some(list)
}

/// The numbers of the list at the beginning of this text. After a comma at the end of a line, the
/// list continues in the next line.
fn read_list<'a>(
    list: &'a str,
    following: impl Iterator<Item = &'a str>,
) -> Result<Vec<Number>, &'static str> {
    let mut text = list.trim_end().to_owned();
    let mut following = following;
    while text.ends_with(',') {
        let next = following.next().ok_or("the list ends with a comma")?;
        text.push(' ');
        text.push_str(next.trim_start_matches(['/', '!', '#', ' ', '\t']).trim_end());
    }
    // The list ends with the sentence.
    let list = text.split(". ").next().unwrap_or_default().trim_end_matches(['.', '"', ' ']);
    let items: Vec<&str> = list.split(',').map(str::trim).collect();
    let numbers: Vec<Number> = items.iter().flat_map(|item| numbers_in(item)).collect();
    let is_plain = |item: &&str| {
        item.starts_with('W') && item[1..].chars().all(|c| c.is_ascii_digit() || ".-".contains(c))
    };
    if numbers.len() != items.len() || !items.iter().all(is_plain) {
        return Err("the list must be numbers with commas between them, and a full stop");
    }
    Ok(numbers)
}

/// The annotations in a Rust file.
pub(super) fn in_rust(file: &str, code: &str) -> Vec<Annotation> {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let annotated = lines.iter().enumerate().filter(|(_, line)| line.starts_with("//"));
    let mut found = Vec::new();
    for (at, list) in annotated.filter_map(|(at, line)| Some((at, list_in(line)?))) {
        found.push(Annotation {
            place: format!("{file}:{}", at + 1),
            test: rust_test(&lines, at).map(|name| format!("{}::{name}", module(file))),
            named: read_list(list, lines[at + 1..].iter().copied()),
        });
    }
    found
}

/// The name of the test below the comment that contains line `at`.
fn rust_test<'a>(lines: &[&'a str], at: usize) -> Result<&'a str, &'static str> {
    let is_above = |line: &&&str| line.starts_with("//") || line.starts_with("#[");
    let up = lines[..at].iter().rev().take_while(is_above).count();
    let down = lines[at..].iter().take_while(is_above).count();
    let above = &lines[at - up..at + down];
    let is_test = above.iter().any(|line| {
        let attribute = line.strip_prefix("#[").and_then(|rest| rest.split([']', '(']).next());
        attribute.is_some_and(|path| path.rsplit("::").next() == Some("test"))
    });
    if !is_test {
        return Err("no #[test] follows the comment directly");
    }
    let declaration = lines.get(at + down).copied().unwrap_or_default();
    let (_, name) = declaration.split_once("fn ").ok_or("no function follows the comment")?;
    name.split(['(', '<']).next().ok_or("the function has no name")
}

/// The module of a file, without parts such as `src` and `tests`: `crypto::handshake::ik`.
fn module(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches(".py");
    let parts =
        path.split('/').filter(|part| !["src", "tests", "mod", "lib", "main"].contains(part));
    parts.collect::<Vec<_>>().join("::")
}

/// The annotations in a Python file.
pub(super) fn in_python(file: &str, code: &str) -> Vec<Annotation> {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(list) = list_in(line) else { continue };
        found.push(Annotation {
            place: format!("{file}:{}", at + 1),
            test: python_test(&lines, at).map(|name| format!("{}::{name}", module(file))),
            named: read_list(list, lines[at + 1..].iter().copied()),
        });
    }
    found
}

/// The name of the test in whose docstring line `at` is.
fn python_test<'a>(lines: &[&'a str], at: usize) -> Result<&'a str, &'static str> {
    const NO_TEST: &str = "not in the docstring of a `def test_...`";
    let is_definition = |line: &&str| line.starts_with("def ") || line.starts_with("async def ");
    let begins = lines[..at].iter().rposition(is_definition).ok_or(NO_TEST)?;
    // The docstring begins in the line after the signature.
    let signature = lines[begins..].iter().position(|line| line.ends_with(':')).ok_or(NO_TEST)?;
    let opens = begins + signature + 1;
    let quotes = ["\"\"\"", "'''"].into_iter().find(|quotes| {
        lines.get(opens).is_some_and(|line| line.trim_start_matches('r').starts_with(quotes))
    });
    let text_above = lines.get(opens..at).ok_or(NO_TEST)?.join("\n");
    let is_open_above = text_above.matches(quotes.ok_or(NO_TEST)?).count() < 2;
    let (_, name) = lines[begins].split_once("def ").ok_or(NO_TEST)?;
    let name = name.split('(').next().unwrap_or_default();
    if is_open_above && name.starts_with("test_") { Ok(name) } else { Err(NO_TEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(code: &str) -> (Result<String, &'static str>, Result<usize, &'static str>) {
        let mut found = in_rust("crypto/src/handshake/ik.rs", code);
        assert_eq!(found.len(), 1, "{code}");
        let found = found.remove(0);
        (found.test, found.named.map(|named| named.len()))
    }

    #[test]
    fn an_annotation_above_a_test_is_read() {
        let name = Ok("crypto::handshake::ik::a_case".to_owned());
        for code in [
            "/// wire.md: W4-3, W4-10.\n#[test]\nfn a_case() {}",
            "    // wire.md: W4-3,\n    // W4-10.\n    #[test]\n    fn a_case() {}",
            "/// A sentence. wire.md: W4-3, W4-10. Another.\n#[cfg(x)]\n#[tokio::test]\nasync fn a_case() {}",
            "#[test]\n/// wire.md: W4-3, W4-10\n/// More.\nfn a_case<T>() {}",
            "#[test(flavor = 1)]\n// wire.md: W4-3, W4-10.\npub(crate) fn a_case() {}",
        ] {
            assert_eq!(rust(code), (name.clone(), Ok(2)), "{code}");
        }
    }

    #[test]
    fn an_annotation_without_a_test_is_a_fault() {
        for code in [
            "/// wire.md: W4-3.\nfn a_case() {}",
            "/// wire.md: W4-3.\n\n#[test]\nfn a_case() {}",
            "//! wire.md: W4-3.\n\nuse x;",
            "/// wire.md: W4-3.\n#[cfg(test)]\nfn a_case() {}",
            "/// wire.md: W4-3.\n#[test]\nstruct X;",
        ] {
            assert!(rust(code).0.is_err(), "{code}");
        }
    }

    #[test]
    fn a_list_that_is_not_plain_is_a_fault() {
        for list in
            ["W4-3 to W4-9.", "W4-3 W4-4.", "W4-3,", "W4-3, and more.", "W4-3 and W4-4", "W4."]
        {
            assert!(
                rust(&format!("/// wire.md: {list}\n#[test]\nfn a() {{}}")).1.is_err(),
                "{list}"
            );
        }
        assert!(in_rust("x.rs", "// wire.md: see there\n").is_empty());
        assert!(in_rust("x.rs", "let x = \"wire.md: W4-3\";\n").is_empty());
    }

    #[test]
    fn a_docstring_of_a_python_test_is_read() {
        let test = |code: &str| {
            let mut found = in_python("interop/tests/test_ik.py", code);
            assert_eq!(found.len(), 1, "{code}");
            let found = found.remove(0);
            (found.test.ok(), found.named.map(|named| named.len()).ok())
        };
        let name = Some("interop::test_ik::test_a_case".to_owned());
        for code in [
            "def test_a_case():\n    \"\"\"wire.md: W4-3, W4-10.\"\"\"\n    x()\n",
            "class T:\n    async def test_a_case(\n        self,\n    ):\n        \"\"\"Says.\n\n        wire.md: W4-3,\n        W4-10.\n        \"\"\"\n",
            "def test_a_case():\n    \"\"\"Says.\n    wire.md: W4-3, W4-10.\"\"\"\n",
            "def test_a_case() -> None:\n    \"\"\"Says. wire.md: W4-3, W4-10.\n    \"\"\"\n",
        ] {
            assert_eq!(test(code), (name.clone(), Some(2)), "{code}");
        }
        for code in [
            "def helper():\n    \"\"\"wire.md: W4-3.\"\"\"\n",
            "\"\"\"wire.md: W4-3.\"\"\"\n",
            "def test_a():\n    x()\n    # wire.md: W4-3.\n",
            "def test_a():\n    \"\"\"Ends.\"\"\"\n    # wire.md: W4-3.\n",
        ] {
            assert_eq!(test(code).0, None, "{code}");
        }
    }
}
