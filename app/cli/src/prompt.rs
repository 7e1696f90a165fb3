//! Asking the user on the terminal; secrets are never arguments and never echoed.

use std::io::{BufRead, IsTerminal, Write};

use ropewalk_ipc::{CredentialField, CredentialReason, CredentialRequest, Credentials, ErrorInfo, Secret};
use zeroize::Zeroizing;

use crate::commands::failed;
use crate::terminal::Kept;

/// The first line of standard input.
pub fn from_stdin() -> Result<Secret, ErrorInfo> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| failed(format!("the password cannot be read from standard input: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(failed("there is no password on standard input"));
    }
    Ok(password.into())
}

/// Asks for each field; `None` when there is no terminal, or the user pressed Ctrl-D. Dropping the future leaves
/// the thread behind that waits for the terminal, which gets its settings back; the process is about to end then.
pub async fn on_terminal(question: CredentialRequest) -> Option<Credentials> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let terminal = Kept::note();
    let answer = tokio::task::spawn_blocking(move || read_all(&question).ok()).await.ok().flatten();
    terminal.answered();
    answer
}

fn read_all(question: &CredentialRequest) -> std::io::Result<Credentials> {
    match question.reason {
        CredentialReason::Missing => {}
        CredentialReason::Wrong => eprintln!("That was not right; once more."),
        CredentialReason::Expired => eprintln!("The gateway wants a new one."),
    }
    let mut answer = Credentials::default();
    let profile = &question.profile;
    for field in &question.fields {
        match field {
            CredentialField::User => {
                eprint!("User for {profile}: ");
                std::io::stderr().flush()?;
                let mut line = String::new();
                if std::io::stdin().lock().read_line(&mut line)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                answer.user = Some(line.trim().to_owned());
            }
            CredentialField::Password => {
                let user = answer.user.as_ref().or(question.user.as_ref());
                let of = user.map(|user| format!(" of {user}")).unwrap_or_default();
                answer.password = Some(secret(&format!("Password{of} for {profile}: "))?);
            }
            CredentialField::Psk => answer.psk = Some(secret(&format!("Pre-shared key for {profile}: "))?),
            CredentialField::Pkcs12Password => {
                answer.pkcs12_password = Some(secret("Password of the certificate bundle: ")?);
            }
        }
    }
    Ok(answer)
}

fn secret(words: &str) -> std::io::Result<Secret> {
    rpassword::prompt_password(words).map(Secret::new)
}
