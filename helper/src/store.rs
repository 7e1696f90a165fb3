//! Where profiles and their secrets are kept.
//!
//! - `STATE/profiles/user-UID/`: each user's own, `STATE/profiles/system/`: for all users of the machine. A
//!   profile is `NAME.toml`, its secrets are beside it in `NAME.secrets.toml`; folders are 0700, files 0600, and
//!   writing is atomic (temporary file, fsync, rename).
//! - `CONFIG/profiles/*.toml`: handed out by the administrator, read only, secrets inside.
//!
//! File names are derived from the profile's name ([`file_stem`]) and never are the name itself, so that no name
//! leads out of the folder. Calls block; the service makes them on a thread for that.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ropewalk_ipc::{ErrorCode, ErrorInfo, ProfileSource};
use ropewalk_profile::{Profile, Secrets};
use zeroize::Zeroizing;

/// Profiles one user may keep: far beyond need, and a bound on what a user can make root's disk hold.
const MAX_PROFILES: usize = 256;

/// A stored file larger than this was not written by us; the protocol's frames are no larger either.
const MAX_FILE: u64 = 1024 * 1024;

/// A profile with its secrets.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The profile.
    pub profile: Profile,
    /// Its secrets.
    pub secrets: Secrets,
    /// Where it comes from.
    pub source: ProfileSource,
}

/// A file that should be a profile and cannot be used.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The name, as far as it can be told: the file's.
    pub name: String,
    /// Where it comes from.
    pub source: ProfileSource,
    /// What is wrong with it.
    pub error: ErrorInfo,
}

/// Whom a saved profile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One user.
    User(u32),
    /// Every user of the machine.
    System,
}

/// The folders.
#[derive(Debug, Clone)]
pub struct Store {
    state: PathBuf,
    config: PathBuf,
}

impl Store {
    /// A store in these folders; nothing is made before it is needed.
    #[must_use]
    pub fn new(state_dir: &Path, config_dir: &Path) -> Self {
        Self { state: state_dir.join("profiles"), config: config_dir.join("profiles") }
    }

    /// Everything that this user may use, by name, and what is broken.
    #[must_use]
    pub fn list(&self, uid: u32) -> Vec<Result<Stored, Broken>> {
        let mut all = Vec::new();
        for (dir, source) in self.places(uid) {
            for path in profile_files(&dir) {
                all.push(self.load(&path, source).map_err(|error| Broken {
                    name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                    source,
                    error,
                }));
            }
        }
        all.sort_by_key(|one| match one {
            Ok(stored) => stored.profile.name.to_lowercase(),
            Err(broken) => broken.name.to_lowercase(),
        });
        all
    }

    /// The profile of this name: the user's own, else the machine's, else the administrator's.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn get(&self, uid: u32, name: &str) -> Result<Stored, ErrorInfo> {
        for (dir, source) in self.places(uid) {
            match source {
                ProfileSource::User | ProfileSource::System => {
                    let path = dir.join(format!("{}.toml", file_stem(name)));
                    if path.exists() {
                        return self.load(&path, source);
                    }
                }
                ProfileSource::Managed => {
                    let mut broken = None;
                    for path in profile_files(&dir) {
                        match self.load(&path, source) {
                            Ok(stored) if stored.profile.name == name => return Ok(stored),
                            Ok(_) => {}
                            Err(error) if path.file_stem().is_some_and(|stem| stem == name) => {
                                broken = Some(error)
                            }
                            Err(_) => {}
                        }
                    }
                    if let Some(error) = broken {
                        return Err(error);
                    }
                }
            }
        }
        Err(ErrorInfo::new(
            ErrorCode::Failed,
            format!("there is no profile `{name}`"),
            "`ropewalk profiles` lists them, `ropewalk import FILE` adds one",
        ))
    }

    /// Where a profile of this name comes from, also when it is damaged: told by its file alone.
    #[must_use]
    pub fn source_of(&self, uid: u32, name: &str) -> Option<ProfileSource> {
        let file = format!("{}.toml", file_stem(name));
        [(Scope::User(uid), ProfileSource::User), (Scope::System, ProfileSource::System)]
            .into_iter()
            .find(|(scope, _)| self.dir(*scope).join(&file).exists())
            .map(|(_, source)| source)
    }

    /// Saves a profile; true when it replaced one of the same name and scope.
    ///
    /// # Errors
    /// The name is taken by a profile of the machine's, there are too many, or the disk does not take it.
    pub fn save(&self, scope: Scope, profile: &Profile, secrets: &Secrets) -> Result<bool, ErrorInfo> {
        self.check_name_is_free(scope, &profile.name)?;
        let dir = self.dir(scope);
        make_private_dir(&dir).map_err(|error| disk("make the folder for profiles", &error))?;
        let stem = file_stem(&profile.name);
        let path = dir.join(format!("{stem}.toml"));
        let replaced = path.exists();
        if !replaced && profile_files(&dir).len() >= MAX_PROFILES {
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                format!("there are {MAX_PROFILES} profiles already, which is the limit"),
                "remove one with `ropewalk remove NAME`",
            ));
        }
        // Secrets first: a profile without its secrets would be asked for again, the other order loses nothing.
        let secrets_path = dir.join(format!("{stem}.secrets.toml"));
        if secrets.is_empty() {
            remove_if_there(&secrets_path).map_err(|error| disk("remove the old secrets", &error))?;
        } else {
            let text = toml::to_string(secrets)
                .map(Zeroizing::new)
                .map_err(|error| disk("write the secrets", &io::Error::other(error.to_string())))?;
            write_atomically(&secrets_path, text.as_bytes())
                .map_err(|error| disk("save the secrets", &error))?;
        }
        write_atomically(&path, profile.to_toml().as_bytes())
            .map_err(|error| disk("save the profile", &error))?;
        Ok(replaced)
    }

    /// Removes a profile and its secrets.
    ///
    /// # Errors
    /// There is none in this scope, or the disk does not let go of it.
    pub fn remove(&self, scope: Scope, name: &str) -> Result<(), ErrorInfo> {
        let dir = self.dir(scope);
        let stem = file_stem(name);
        remove_if_there(&dir.join(format!("{stem}.secrets.toml")))
            .and_then(|()| fs::remove_file(dir.join(format!("{stem}.toml"))))
            .and_then(|()| sync_dir(&dir))
            .map_err(|error| disk(&format!("remove the profile `{name}`"), &error))
    }

    fn places(&self, uid: u32) -> [(PathBuf, ProfileSource); 3] {
        [
            (self.dir(Scope::User(uid)), ProfileSource::User),
            (self.dir(Scope::System), ProfileSource::System),
            (self.config.clone(), ProfileSource::Managed),
        ]
    }

    fn dir(&self, scope: Scope) -> PathBuf {
        match scope {
            Scope::User(uid) => self.state.join(format!("user-{uid}")),
            Scope::System => self.state.join("system"),
        }
    }

    /// A user's profile must not stand in front of one that the administrator gave to everybody.
    fn check_name_is_free(&self, scope: Scope, name: &str) -> Result<(), ErrorInfo> {
        let taken_by = |what: &str| {
            Err(ErrorInfo::new(
                ErrorCode::ProfileRefused,
                format!("the name `{name}` is taken by {what}"),
                "import it with another name: `--name NAME`",
            ))
        };
        for path in profile_files(&self.config) {
            if self.load(&path, ProfileSource::Managed).is_ok_and(|stored| stored.profile.name == name) {
                return taken_by("a profile that your administrator hands out");
            }
        }
        match scope {
            Scope::User(_) if self.dir(Scope::System).join(format!("{}.toml", file_stem(name))).exists() => {
                taken_by("a profile for all users of this machine")
            }
            Scope::User(_) | Scope::System => Ok(()),
        }
    }

    fn load(&self, path: &Path, source: ProfileSource) -> Result<Stored, ErrorInfo> {
        let refused = |what: String| {
            ErrorInfo::new(
                ErrorCode::ProfileRefused,
                format!("the profile {} cannot be used: {what}", path.display()),
                match source {
                    ProfileSource::Managed => "ask your administrator",
                    ProfileSource::User | ProfileSource::System => "import it again",
                },
            )
        };
        let text = read_private(path, source).map_err(|error| refused(error.to_string()))?;
        let parsed = Profile::from_toml(&text).map_err(|error| refused(error.to_string()))?;
        let secrets = match source {
            ProfileSource::Managed => parsed.secrets,
            ProfileSource::User | ProfileSource::System => {
                let path = path.with_extension("secrets.toml");
                match read_private(&path, source) {
                    Ok(text) => {
                        toml::from_str(&text).map_err(|_| refused("its secrets are damaged".to_owned()))?
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Secrets::default(),
                    Err(error) => return Err(refused(error.to_string())),
                }
            }
        };
        Ok(Stored { profile: parsed.profile, secrets, source })
    }
}

/// Writes a file so that it is there whole or not at all: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// What the operating system says.
pub fn write_atomically(path: &Path, data: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    // What a killed predecessor with our process id left.
    remove_if_there(&temporary)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(data)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(dir)
}

/// A folder that only its owner enters.
///
/// # Errors
/// What the operating system says.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // One that was there already may have been made by somebody less careful.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// The stem of a profile's file: what is readable of the name, and a digest that keeps names apart.
#[must_use]
pub fn file_stem(name: &str) -> String {
    let readable: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let tail: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{readable}-{tail}")
}

fn profile_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".toml") && !name.ends_with(".secrets.toml") && !name.starts_with('.')
        })
        .collect();
    files.sort();
    files
}

/// Reads a file that nobody but root (or the user the helper runs as) can have written.
fn read_private(path: &Path, source: ProfileSource) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let own = nix::unistd::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(io::Error::other("it does not belong to root"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others than root can write to it"));
    }
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {MAX_FILE} octets")));
    }
    if source != ProfileSource::Managed && metadata.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others than root can read this file");
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn disk(what: &str, error: &io::Error) -> ErrorInfo {
    ErrorInfo::new(
        ErrorCode::Failed,
        format!("cannot {what}: {error}"),
        "check the disk's free space and the folder's owner",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> (Profile, Secrets) {
        let text = format!(
            "version = 1\nname = \"{name}\"\n[gateway]\naddress = \"vpn.example.com\"\n[auth]\nmethod = \"psk\"\npsk = \"hunter2\"\n"
        );
        let parsed = Profile::from_toml(&text).unwrap();
        (parsed.profile, parsed.secrets)
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("state"), &dir.path().join("config"));
        (dir, store)
    }

    #[test]
    fn a_saved_profile_comes_back_with_its_secrets_and_only_for_its_user() {
        let (_dir, store) = store();
        let (profile, secrets) = profile("../Büro / 1");
        assert!(!store.save(Scope::User(1000), &profile, &secrets).unwrap());
        assert!(store.save(Scope::User(1000), &profile, &secrets).unwrap(), "the second time it is replaced");
        let stored = store.get(1000, "../Büro / 1").unwrap();
        assert_eq!((stored.profile, stored.secrets), (profile, secrets));
        assert!(store.get(1001, "../Büro / 1").is_err());
        store.remove(Scope::User(1000), "../Büro / 1").unwrap();
        assert!(store.list(1000).is_empty());
    }

    #[test]
    fn files_are_private_and_the_profile_holds_no_secret() {
        let (dir, store) = store();
        let (profile, secrets) = profile("a");
        store.save(Scope::System, &profile, &secrets).unwrap();
        let folder = dir.path().join("state/profiles/system");
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let mut seen = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.contains("hunter2"), path.to_string_lossy().ends_with(".secrets.toml"));
            seen += 1;
        }
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_managed_profile_is_read_and_its_name_cannot_be_taken() {
        let (dir, store) = store();
        let (profile, secrets) = profile("corp");
        let folder = dir.path().join("config/profiles");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("it.toml"), profile.to_toml()).unwrap();
        fs::write(folder.join("bad.toml"), "version = 7\n").unwrap();
        assert_eq!(store.get(1000, "corp").unwrap().source, ProfileSource::Managed);
        let error = store.save(Scope::User(1000), &profile, &secrets).unwrap_err();
        assert_eq!(error.code, ErrorCode::ProfileRefused);
        assert_eq!(store.list(1000).iter().filter(|one| one.is_err()).count(), 1);
    }

    #[test]
    fn a_managed_profile_that_others_can_write_is_refused() {
        let (dir, store) = store();
        let folder = dir.path().join("config/profiles");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("it.toml");
        fs::write(&path, profile("corp").0.to_toml()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(store.get(1000, "corp").is_err());
    }

    #[test]
    fn names_that_look_alike_in_file_names_stay_apart() {
        assert_ne!(file_stem("a b"), file_stem("a-b"));
        assert!(file_stem(&"ü".repeat(128)).len() < 64);
    }
}
