//! The sample of requirements whose tests were tried: with the implementing line disabled, the named test must fail.
//!
//! A mutant counts only when the changed code still compiles and the test fails by itself; a test that fails before the
//! change, hangs, or is not run proves nothing and is an error. The tree that is changed is a scratch copy.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// How long a changed test may run; one that hangs has not failed by an assertion.
const PATIENCE: Duration = Duration::from_secs(600);

/// The list, `tests/conformance/mutants.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutants {
    /// When and on which version all of them were tried last.
    pub last_run: String,
    /// The mutants.
    #[serde(rename = "mutant", default)]
    pub list: Vec<Mutant>,
}

/// One line that is disabled.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// The id of the requirement.
    pub requirement: String,
    /// The file that implements it.
    pub file: String,
    /// What the change takes away, in words.
    pub disables: String,
    /// The text that implements it; it stands exactly once in the file.
    pub original: String,
    /// What takes its place.
    pub replacement: String,
    /// The test that must notice, as `path/of/the/file.rs::name`.
    pub test: String,
}

/// Reads the list below the repository's root.
///
/// # Errors
/// The file cannot be read or is not well formed.
pub fn read(root: &Path) -> Result<Mutants> {
    let path = root.join("tests/conformance/mutants.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// How one test is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestCommand {
    /// The package.
    pub package: String,
    /// `--lib`, `--bin name` or `--test name`.
    pub target: Vec<String>,
    /// The name of the function.
    pub name: String,
}

impl TestCommand {
    /// The command for `path/of/the/file.rs::name` in the tree at `root`.
    ///
    /// # Errors
    /// The path leads to no package.
    pub fn of(root: &Path, test: &str) -> Result<Self> {
        let (file, name) = test.split_once("::").with_context(|| format!("{test}: no name"))?;
        let file = Path::new(file);
        let crate_folder = file
            .ancestors()
            .skip(1)
            .find(|folder| root.join(folder).join("Cargo.toml").is_file())
            .with_context(|| format!("{test}: in no package"))?;
        let manifest = std::fs::read_to_string(root.join(crate_folder).join("Cargo.toml"))?;
        let manifest: toml::Table = manifest.parse()?;
        let package = manifest.get("package").and_then(|package| package.get("name")?.as_str());
        let package = package.with_context(|| format!("{test}: in no package"))?.to_owned();
        let inside: Vec<&str> =
            file.strip_prefix(crate_folder)?.iter().filter_map(|part| part.to_str()).collect();
        let target = match inside.as_slice() {
            ["src", ..] => vec!["--lib".to_owned()],
            // tests/name.rs, or tests/name/… with a main.rs.
            ["tests", first, ..] => vec!["--test".to_owned(), first.trim_end_matches(".rs").to_owned()],
            _ => bail!("{test}: neither below src nor below tests"),
        };
        Ok(Self { package, target, name: name.to_owned() })
    }

    fn cargo(&self, tree: &Path) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(tree).args(["test", "--quiet", "--locked", "--package", &self.package]);
        cargo.args(&self.target);
        // What runs this may have been started by cargo for another package.
        for variable in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo
    }
}

/// What a run of one test showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed by itself.
    Failed,
}

/// Compiles and runs one test in a tree.
///
/// # Errors
/// The tree does not compile, the test is not there or did not end.
pub fn run(tree: &Path, test: &TestCommand) -> Result<Verdict> {
    let compiled = test.cargo(tree).arg("--no-run").output().context("run cargo")?;
    ensure!(compiled.status.success(), "it does not compile:\n{}", String::from_utf8_lossy(&compiled.stderr));
    let mut command = test.cargo(tree);
    // `pretty` names each test; --quiet would print dots.
    command.args(["--", "--format=pretty", "--test-threads=1", &test.name]);
    let output = with_patience(&mut command)?;
    let shown = String::from_utf8_lossy(&output.stdout);
    let line = |end: &str| {
        shown.lines().any(|line| {
            let ours = line.strip_prefix("test ").and_then(|line| line.strip_suffix(end));
            ours.is_some_and(|path| path.rsplit("::").next() == Some(test.name.as_str()))
        })
    };
    match (line(" ... ok"), line(" ... FAILED")) {
        (true, false) => Ok(Verdict::Passed),
        (false, true) => Ok(Verdict::Failed),
        _ => bail!("{} was not run:\n{shown}{}", test.name, String::from_utf8_lossy(&output.stderr)),
    }
}

fn with_patience(command: &mut Command) -> Result<Output> {
    let (out, errors) = (tempfile("out")?, tempfile("err")?);
    let mut child = command
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&errors)?)
        .spawn()
        .context("run cargo")?;
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            bail!("it did not end within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let output = Output { status, stdout: std::fs::read(&out)?, stderr: std::fs::read(&errors)? };
    for file in [out, errors] {
        std::fs::remove_file(file)?;
    }
    Ok(output)
}

fn tempfile(kind: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir();
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    Ok(folder.join(format!("ropewalk-mutant-{}.{kind}", std::process::id())))
}

impl Mutant {
    /// The file's text with the line disabled.
    ///
    /// # Errors
    /// The line does not stand there exactly once.
    pub fn apply(&self, source: &str) -> Result<String> {
        let count = source.matches(&self.original).count();
        ensure!(count == 1, "{}: the original stands {count} times in {}", self.requirement, self.file);
        ensure!(self.original != self.replacement, "{}: nothing is changed", self.requirement);
        Ok(source.replacen(&self.original, &self.replacement, 1))
    }
}
