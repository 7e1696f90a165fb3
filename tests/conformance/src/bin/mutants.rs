//! Tries the mutants in a tree that may be changed: `mutants TREE [WORD]`, where WORD keeps those whose requirement or file
//! contains it. `scripts/mutants.sh` makes the tree.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ropewalk_conformance::mutants::{Mutant, TestCommand, Verdict, read, run};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let tree = arguments.next().context("usage: mutants TREE [WORD]")?;
    let tree = Path::new(&tree);
    let word = arguments.next().unwrap_or_default();
    let mut list = read(tree)?.list;
    list.retain(|mutant| mutant.requirement.contains(&word) || mutant.file.contains(&word));
    ensure!(!list.is_empty(), "no mutant has {word} in its requirement or file");
    let all = list.len();
    let mut before = BTreeMap::new();
    let mut wrong = 0;
    for (number, mutant) in (1..).zip(&list) {
        let outcome = attempt(tree, mutant, &mut before);
        let said = match &outcome {
            Ok(()) => "noticed".to_owned(),
            Err(error) => format!("WRONG: {error:#}"),
        };
        println!("{number}/{all} {} {}: {said}", mutant.requirement, mutant.disables);
        wrong += usize::from(outcome.is_err());
    }
    if wrong > 0 {
        bail!("{wrong} of {all} went wrong");
    }
    println!("all {all} were noticed");
    Ok(())
}

/// Tries one mutant, and leaves the tree as it was.
fn attempt(tree: &Path, mutant: &Mutant, before: &mut BTreeMap<String, bool>) -> Result<()> {
    let test = TestCommand::of(tree, &mutant.test)?;
    if !before.contains_key(&mutant.test) {
        let passes = run(tree, &test).context("before the change")? == Verdict::Passed;
        before.insert(mutant.test.clone(), passes);
    }
    ensure!(before.get(&mutant.test) == Some(&true), "{} fails before the change", mutant.test);
    let file = tree.join(&mutant.file);
    let source = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let changed = mutant.apply(&source)?;
    std::fs::write(&file, changed)?;
    let verdict = run(tree, &test);
    std::fs::write(&file, source)?;
    ensure!(verdict? == Verdict::Failed, "{} does not notice", mutant.test);
    Ok(())
}
