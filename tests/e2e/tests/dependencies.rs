//! `deny.toml` holds: licences, bans and sources of every crate in `Cargo.lock`.
//!
//! This reads the same file as cargo-deny, whose compilation takes longer than the whole check is worth on every machine;
//! `make deny` runs the real one.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

fn packages() -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(root())
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
    list.iter()
        .map(|package| {
            Ok(Package {
                name: text(package, "name").context("a package without a name")?,
                version: text(package, "version").unwrap_or_default(),
                license: text(package, "license"),
                source: text(package, "source"),
            })
        })
        .collect()
}

fn rules() -> Result<toml::Table> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("read deny.toml")?;
    Ok(text.parse()?)
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn list<'a>(rules: &'a toml::Table, section: &str, key: &str) -> Result<&'a Vec<toml::Value>> {
    rules
        .get(section)
        .and_then(|section| section.get(key))
        .and_then(toml::Value::as_array)
        .with_context(|| format!("deny.toml has no {section}.{key}"))
}

fn strings(values: &[toml::Value]) -> Vec<&str> {
    values.iter().filter_map(toml::Value::as_str).collect()
}

/// Whether an SPDX expression can be satisfied by what `allowed` accepts. `/` is an old way to write OR.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    words.reverse();
    let result = either(&mut words, allowed);
    result && words.is_empty()
}

fn either(words: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = both(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        result |= both(words, allowed);
    }
    result
}

fn both(words: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = one(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let Some(word) = words.pop() else { return false };
    if word == "(" {
        let result = either(words, allowed);
        return words.pop() == Some(")") && result;
    }
    if words.last() == Some(&"WITH") {
        words.pop();
        let exception = words.pop().unwrap_or_default();
        return allowed(&format!("{word} WITH {exception}"));
    }
    allowed(word)
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = |licence: &str| matches!(licence, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception");
    for fine in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(satisfied(fine, &allowed), "{fine}");
    }
    for wrong in ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "(MIT", "MIT ISC", "ISC AND (GPL-3.0 OR X)"]
    {
        assert!(!satisfied(wrong, &allowed), "{wrong}");
    }
}

#[test]
fn every_licence_is_one_that_we_allow() -> Result<()> {
    let rules = rules()?;
    let allow = strings(list(&rules, "licenses", "allow")?);
    let mut exceptions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for exception in list(&rules, "licenses", "exceptions")? {
        let name =
            exception.get("crate").and_then(toml::Value::as_str).context("an exception without a crate")?;
        let more =
            exception.get("allow").and_then(toml::Value::as_array).context("an exception without allow")?;
        exceptions.insert(name, strings(more));
    }
    let mut refused = Vec::new();
    for package in packages()? {
        let more = exceptions.get(package.name.as_str());
        let allowed =
            |licence: &str| allow.contains(&licence) || more.is_some_and(|more| more.contains(&licence));
        if !package.license.as_deref().is_some_and(|expression| satisfied(expression, &allowed)) {
            refused.push(format!("{} {}: {:?}", package.name, package.version, package.license));
        }
    }
    ensure!(refused.is_empty(), "licences that deny.toml does not allow:\n{}", refused.join("\n"));
    Ok(())
}

#[test]
fn no_banned_crate_is_used_and_cryptography_comes_in_one_version() -> Result<()> {
    let rules = rules()?;
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages()? {
        versions.entry(package.name).or_default().push(package.version);
    }
    for ban in list(&rules, "bans", "deny")? {
        let name = ban.get("crate").and_then(toml::Value::as_str).context("a ban without a crate")?;
        let only_doubles = ban.get("deny-multiple-versions").and_then(toml::Value::as_bool).unwrap_or(false);
        let found = versions.get(name).map_or(&[][..], Vec::as_slice);
        let limit = usize::from(only_doubles);
        ensure!(found.len() <= limit, "{name} is banned beyond {limit} version(s), found {found:?}");
    }
    Ok(())
}

#[test]
fn every_crate_comes_from_the_default_registry_or_this_repository() -> Result<()> {
    let mut registries: Vec<String> = packages()?.into_iter().filter_map(|package| package.source).collect();
    registries.sort();
    registries.dedup();
    ensure!(registries.len() == 1, "more than one source: {registries:?}");
    ensure!(
        registries.iter().all(|source| source.starts_with("registry+")),
        "not a registry: {registries:?}"
    );
    Ok(())
}
