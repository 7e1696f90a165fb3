//! Which tests a Rust source file holds.
//!
//! The text is read line by line: an attribute that makes a test, then the name of the next function. That is enough for
//! `#[test]`, `#[tokio::test]` and what stands inside `proptest!`, and needs no compiler.

use std::collections::BTreeMap;

/// The names of the tests in a source text, and whether each runs (is not ignored).
#[must_use]
pub fn tests_in(source: &str) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let (mut is_test, mut runs) = (false, true);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            (is_test, runs) = (true, true);
        } else if line.starts_with("#[ignore") {
            runs = false;
        } else if let Some(name) = function_name(line) {
            if is_test {
                found.insert(name.to_owned(), runs);
            }
            (is_test, runs) = (false, true);
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let rest = line.strip_prefix("fn ")?;
    let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
    rest.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_every_kind_are_found_and_other_functions_are_not() {
        let source = "
            fn helper() {}
            #[test]
            #[allow(dead_code)]
            fn plain() { }
            #[tokio::test(flavor = \"current_thread\")]
            async fn awaits() {}
            // #[test]
            fn commented_out() {}
            proptest! {
                #[test]
                fn any_octets(octets in vec(any::<u8>(), 0..9)) {}
            }
            #[test]
            #[ignore = \"slow\"]
            fn sleeps() {}
            fn after() {}";
        let found: Vec<(String, bool)> = tests_in(source).into_iter().collect();
        let names: Vec<(&str, bool)> = found.iter().map(|(name, runs)| (name.as_str(), *runs)).collect();
        assert_eq!(names, [("any_octets", true), ("awaits", true), ("plain", true), ("sleeps", false)]);
    }
}
