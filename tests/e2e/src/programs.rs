//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folder with `ropewalk`, `ropewalk-helper` and `ropewalk-gateway`.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// From `ROPEWALK_BIN_DIR`, else beside the running test (`target/<profile>`).
    ///
    /// # Errors
    /// When the folder cannot be told.
    pub fn find() -> Result<Self> {
        let dir = match std::env::var_os("ROPEWALK_BIN_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => beside_this_program()?,
        };
        Ok(Self { dir })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of them.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        ensure!(
            path.is_file(),
            "{name} is not in {}: run `cargo build --workspace --all-targets` first, or `make test`",
            self.dir.display()
        );
        Ok(path)
    }
}

fn beside_this_program() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("where this test is")?;
    let dir = exe.parent().context("the test's folder")?;
    // Tests are in target/<profile>/deps, programs in target/<profile>.
    let dir = if dir.file_name().is_some_and(|name| name == "deps") { dir.parent() } else { Some(dir) };
    dir.map(Path::to_path_buf).context("the target folder")
}
