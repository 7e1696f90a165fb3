//! What the tables say is there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_conformance::mutants::{self, TestCommand};
use ropewalk_conformance::root;
use ropewalk_conformance::rust_tests::tests_in;
use ropewalk_conformance::table::{self, Requirement, Standing};

fn requirements() -> Vec<Requirement> {
    table::read_all(&root()).unwrap().into_iter().flat_map(|standard| standard.requirements).collect()
}

/// What is wrong with a named test, if anything.
fn wrong_with(test: &str, files: &mut BTreeMap<String, BTreeMap<String, bool>>) -> Option<String> {
    let Some((file, name)) = test.split_once("::") else { return Some(format!("{test}: no name")) };
    if !files.contains_key(file) {
        let Ok(source) = std::fs::read_to_string(root().join(file)) else {
            return Some(format!("{test}: no such file"));
        };
        files.insert(file.to_owned(), tests_in(&source));
    }
    match files[file].get(name) {
        Some(true) => None,
        Some(false) => Some(format!("{test}: it is ignored")),
        None => Some(format!("{test}: no such test")),
    }
}

#[test]
fn every_named_test_exists_and_runs() {
    let mut files = BTreeMap::new();
    let requirements = requirements();
    let named = requirements.iter().flat_map(|requirement| &requirement.tests);
    let wrong: Vec<String> = named.filter_map(|test| wrong_with(test, &mut files)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_test_that_does_not_exist_is_noticed() {
    let mut files = BTreeMap::new();
    let here = "tests/conformance/tests/tables.rs";
    assert_eq!(wrong_with(&format!("{here}::every_named_test_exists_and_runs"), &mut files), None);
    let wrong = wrong_with(&format!("{here}::wrong_with"), &mut files).unwrap();
    assert!(wrong.ends_with("no such test"), "{wrong}");
    assert!(wrong_with("helper/nowhere.rs::name", &mut files).unwrap().ends_with("no such file"));
    assert!(wrong_with("tests/sim/tests/seeds.rs::one_seed", &mut files).unwrap().ends_with("it is ignored"));
}

#[test]
fn ids_are_unique_and_sections_stand_together() {
    let (mut ids, mut sections) = (BTreeSet::new(), BTreeSet::new());
    let mut last = String::new();
    for requirement in requirements() {
        assert!(ids.insert(requirement.id.clone()), "{} stands twice", requirement.id);
        let section = requirement.id.rsplit_once('-').unwrap().0.to_owned();
        assert!(
            section == last || sections.insert(section.clone()),
            "{}: the section is parted",
            requirement.id
        );
        last = section;
    }
}

#[test]
fn every_entry_says_one_thing_and_says_it_in_words() {
    for requirement in requirements() {
        let words = match requirement.standing().unwrap() {
            Standing::Proven(_) => &requirement.text,
            Standing::ByConstruction(reason)
            | Standing::NotApplicable(reason)
            | Standing::Declined(reason)
            | Standing::Open(reason) => reason,
        };
        assert!(words.split_whitespace().count() >= 3, "{}: {words:?}", requirement.id);
        assert!(requirement.text.split_whitespace().count() >= 3, "{}", requirement.id);
    }
}

#[test]
fn the_original_of_every_mutant_stands_exactly_once_in_its_file() {
    for mutant in mutants::read(&root()).unwrap().list {
        let source = std::fs::read_to_string(root().join(&mutant.file)).unwrap();
        mutant.apply(&source).unwrap();
    }
}

#[test]
fn every_mutant_belongs_to_a_requirement_that_its_test_proves() {
    let requirements = requirements();
    let mut seen = BTreeSet::new();
    let list = mutants::read(&root()).unwrap().list;
    for mutant in &list {
        let requirement = requirements.iter().find(|requirement| requirement.id == mutant.requirement);
        let requirement =
            requirement.unwrap_or_else(|| panic!("{}: no such requirement", mutant.requirement));
        assert!(requirement.tests.contains(&mutant.test), "{}: {} is not named", requirement.id, mutant.test);
        assert!(seen.insert(&mutant.requirement), "{} is tried twice", mutant.requirement);
        TestCommand::of(&root(), &mutant.test).unwrap();
    }
    assert!(list.len() >= 30, "a sample of at least 30, not {}", list.len());
}
