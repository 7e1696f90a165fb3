//! `docs/conformance.md`, written from the tables.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;

use crate::mutants::Mutants;
use crate::table::{Standard, Standing};

const HEAD: &str = "\
# Conformance

Each MUST and SHOULD of the standards below that can bind a client, and what of a gateway's half we have, in our own words.
Behind each stands the test that proves it, the reason why it cannot be otherwise, does not apply or is not done on
purpose, or what is missing. REQUIRED and SHALL are counted as MUST, RECOMMENDED as SHOULD; MAY and OPTIONAL demand
nothing and are not listed. Exact repetitions of a requirement are listed once.

This page is written from the tables in `docs/conformance/` by
`ROPEWALK_UPDATE=1 cargo test -p ropewalk-conformance --test published`. A test fails when it is stale, when a named test
does not exist, or when one is ignored.

A test marked ● was tried: the line that implements the requirement was disabled, and the test failed. The list is at the
end; `make mutants` tries it again.
";

/// The page.
///
/// # Errors
/// An entry is not well formed.
pub fn markdown(standards: &[Standard], mutants: &Mutants) -> Result<String> {
    let tried: BTreeSet<&str> = mutants.list.iter().map(|mutant| mutant.requirement.as_str()).collect();
    // Writing to a string cannot fail.
    let mut text = String::from(HEAD);
    summary(&mut text, standards, &tried)?;
    for standard in standards {
        let _ = write!(text, "\n## {}: {}\n\n{}\n", standard.name(), standard.title, standard.scope);
        let mut section = "";
        for requirement in &standard.requirements {
            if requirement.section() != section {
                section = requirement.section();
                let _ = write!(
                    text,
                    "\n### {} section {section}\n\n| id | level | who | what | proof |\n|---|---|---|---|---|\n",
                    standard.name()
                );
            }
            let proof = match requirement.standing()? {
                Standing::Proven(tests) => {
                    let mark = if tried.contains(requirement.id.as_str()) { "● " } else { "" };
                    let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
                    format!("{mark}{}", tests.join("<br>"))
                }
                Standing::ByConstruction(reason) => format!("by construction: {}", cell(reason)),
                Standing::NotApplicable(reason) => format!("does not apply: {}", cell(reason)),
                Standing::Declined(reason) => format!("not done on purpose: {}", cell(reason)),
                Standing::Open(missing) => format!("**open**: {}", cell(missing)),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {proof} |",
                requirement.id,
                requirement.level,
                requirement.role,
                cell(&requirement.text)
            );
        }
    }
    tried_list(&mut text, mutants);
    Ok(text)
}

fn summary(text: &mut String, standards: &[Standard], tried: &BTreeSet<&str>) -> Result<()> {
    let _ = write!(
        text,
        "\n| standard | requirements | proven by tests | of these tried ● | by construction | do not apply | not on \
         purpose | open |\n|---|---|---|---|---|---|---|---|\n"
    );
    let mut totals = [0; 7];
    for standard in standards {
        let mut counts = [0; 7];
        let [all, proven, of_these, constructed, without, declined, open] = &mut counts;
        for requirement in &standard.requirements {
            *all += 1;
            match requirement.standing()? {
                Standing::Proven(_) => {
                    *proven += 1;
                    *of_these += usize::from(tried.contains(requirement.id.as_str()));
                }
                Standing::ByConstruction(_) => *constructed += 1,
                Standing::NotApplicable(_) => *without += 1,
                Standing::Declined(_) => *declined += 1,
                Standing::Open(_) => *open += 1,
            }
        }
        row(text, &standard.name(), counts);
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
    }
    row(text, "all", totals);
    Ok(())
}

fn row(text: &mut String, name: &str, counts: [usize; 7]) {
    let counts = counts.map(|count| count.to_string());
    let _ = writeln!(text, "| {name} | {} |", counts.join(" | "));
}

fn tried_list(text: &mut String, mutants: &Mutants) {
    let _ = write!(
        text,
        "\n## Tried by disabling the line\n\n\
         Each of these {} lines was replaced in a scratch copy, one at a time; the test passed before and failed by its \
         assertions after. Last run: {}.\n\n\
         | requirement | file | what was disabled | test |\n|---|---|---|---|\n",
        mutants.list.len(),
        mutants.last_run
    );
    for mutant in &mutants.list {
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | `{}` |",
            mutant.requirement,
            mutant.file,
            cell(&mutant.disables),
            mutant.test
        );
    }
}

/// Text as it may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
