//! A machine's sleep as its programs see it: `CLOCK_BOOTTIME` jumps, `CLOCK_MONOTONIC` does not.
//!
//! No kernel lets one process's clocks jump: a time namespace takes its offset before the first process enters. So a small
//! library is put in front of the C library of the program under test; it moves what the program reads of that clock, and
//! takes the same off the timers that the program sets by it. The wall clock can be made wrong from the
//! start. The real clocks stay alone.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use ropewalk_lab::{Lab, run};

use crate::PATIENCE;

const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *ahead;
static long long wall;

__attribute__((constructor)) static void start(void) {
    const char *wrong = getenv("WALL_CLOCK_AHEAD");
    if (wrong) wall = atoll(wrong);
    const char *name = getenv("CLOCK_AHEAD");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_BOOTTIME && ahead) time->tv_sec += *ahead;
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += wall;
    return result;
}

int timerfd_settime(int timer, int flags, const struct itimerspec *wanted, struct itimerspec *old) {
    struct itimerspec real = *wanted;
    if ((flags & TFD_TIMER_ABSTIME) && ahead) {
        real.it_value.tv_sec -= *ahead;
        if (real.it_value.tv_sec < 0) real.it_value = (struct timespec){0, 1};
    }
    return syscall(SYS_timerfd_settime, timer, flags, &real, old);
}
"#;

/// The clock of the programs that are started with [`Self::environment`].
#[derive(Debug)]
pub struct BootClock {
    library: PathBuf,
    ahead: PathBuf,
}

impl BootClock {
    /// Makes it, not ahead yet.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn new(lab: &Lab) -> Result<Self> {
        let source = lab.dir().join("boot-clock.c");
        let (library, ahead) = (lab.dir().join("boot-clock.so"), lab.dir().join("boot-clock.ahead"));
        fs::write(&source, LIBRARY)?;
        fs::write(&ahead, 0_i64.to_ne_bytes())?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        run(&mut compiler, &[], PATIENCE)?.success().context("compile the clock's library")?;
        Ok(Self { library, ahead })
    }

    /// What a program needs in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, PathBuf)> {
        vec![("LD_PRELOAD".to_owned(), self.library.clone()), ("CLOCK_AHEAD".to_owned(), self.ahead.clone())]
    }

    /// The same for a program whose wall clock is wrong by so many seconds.
    #[must_use]
    pub fn wrong_by(&self, seconds: i64) -> Vec<(String, PathBuf)> {
        let mut environment = self.environment();
        environment.push(("WALL_CLOCK_AHEAD".to_owned(), seconds.to_string().into()));
        environment
    }

    /// From now on the clock is so far ahead.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_ahead(&self, by: Duration) -> Result<()> {
        let file = File::options().write(true).open(&self.ahead)?;
        Ok(file.write_all_at(&i64::try_from(by.as_secs())?.to_ne_bytes(), 0)?)
    }
}
