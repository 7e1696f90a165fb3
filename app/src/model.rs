//! What the program knows, and what follows from it for the window and the tray. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_ipc::{
    CredentialRequest, Credentials, ErrorInfo, ProfileSummary, State, Status, Totals, Traffic,
};

use crate::imports::PendingImport;
use crate::view::{AppView, Helper, ProfileView, QuestionView};

/// What is known.
#[derive(Debug, Default)]
pub struct Model {
    helper: Helper,
    helper_error: Option<ErrorInfo>,
    profiles: Vec<ProfileSummary>,
    /// Profiles whose password is in the keyring.
    remembered: BTreeSet<String>,
    selected: Option<String>,
    /// The user's own connections, by profile.
    statuses: BTreeMap<String, Status>,
    totals: BTreeMap<String, Totals>,
    questions: Vec<Question>,
    /// What goes into the keyring when the login it was given for has worked.
    to_remember: BTreeMap<String, Credentials>,
    import: Option<PendingImport>,
    notice: Option<ErrorInfo>,
    /// Attempts to connect that the user has not taken back, by profile.
    attempts: BTreeMap<String, u64>,
    next_attempt: u64,
}

#[derive(Debug)]
struct Question {
    request: CredentialRequest,
    can_remember: bool,
}

/// What changed by a status, for those who must act on it.
#[derive(Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing to do.
    None,
    /// The login worked: put this into the keyring.
    Remember(String, Credentials),
    /// A profile is connected that the list does not have: ask for the list again.
    ListProfiles,
}

impl Model {
    /// A model with what the last run left.
    #[must_use]
    pub fn new(selected: Option<String>, remembered: BTreeSet<String>) -> Self {
        Self { selected, remembered, ..Self::default() }
    }

    /// The helper answers.
    pub fn online(&mut self) {
        self.helper = Helper::Running;
        self.helper_error = None;
        self.statuses.clear();
        self.totals.clear();
    }

    /// The helper does not answer, or refuses: nothing is known of connections any more.
    pub fn offline(&mut self, helper: Helper, error: ErrorInfo) {
        self.helper = helper;
        self.helper_error = Some(error);
        self.statuses.clear();
        self.totals.clear();
        self.questions.clear();
        self.attempts.clear();
        self.to_remember.clear();
    }

    /// The helper's list of profiles.
    pub fn set_profiles(&mut self, profiles: Vec<ProfileSummary>) {
        self.profiles = profiles;
        if !self.knows(self.selected.as_deref()) {
            self.selected = self.profiles.first().map(|profile| profile.name.clone());
        }
    }

    /// A state from the helper.
    pub fn set_status(&mut self, status: Status) -> Consequence {
        // Other users' connections are none of our business.
        let Some(name) = status.profile.clone().filter(|_| status.owned) else { return Consequence::None };
        let state = status.state;
        self.totals.insert(name.clone(), status.totals);
        if state == State::Disconnected {
            self.statuses.remove(&name);
            self.totals.remove(&name);
        } else {
            self.statuses.insert(name.clone(), status);
        }
        match state {
            State::Connected => {
                self.drop_questions(&name);
                if let Some(credentials) = self.to_remember.remove(&name) {
                    return Consequence::Remember(name, credentials);
                }
            }
            State::Disconnected | State::Failed | State::Disconnecting => {
                self.drop_questions(&name);
                self.to_remember.remove(&name);
            }
            State::Connecting | State::Reconnecting | State::Blocked => {}
        }
        if self.knows(Some(&name)) { Consequence::None } else { Consequence::ListProfiles }
    }

    /// Counters from the helper.
    pub fn set_traffic(&mut self, traffic: &Traffic) {
        let Some(name) = traffic.profile.as_ref().filter(|_| traffic.owned) else { return };
        let Some(status) = self.statuses.get_mut(name) else { return };
        self.totals.insert(name.clone(), traffic.totals);
        status.paths.clone_from(&traffic.paths);
    }

    /// The user wants this profile connected. The state shown is "connecting" from now on, even before the helper
    /// says so. Returns the number of the attempt and the profiles that must go down for it.
    pub fn begin(&mut self, name: &str) -> (u64, Vec<String>) {
        self.selected = Some(name.to_owned());
        self.notice = None;
        let others = self
            .statuses
            .iter()
            .filter(|(other, status)| other.as_str() != name && status.state.is_active())
            .map(|(other, _)| other.clone())
            .collect();
        if !self.statuses.get(name).is_some_and(|status| status.state.is_active()) {
            let status = Status {
                state: State::Connecting,
                profile: Some(name.to_owned()),
                owned: true,
                ..Status::default()
            };
            self.statuses.insert(name.to_owned(), status);
        }
        self.next_attempt += 1;
        self.attempts.insert(name.to_owned(), self.next_attempt);
        (self.next_attempt, others)
    }

    /// The helper did not take the attempt: it failed, unless the user has taken it back meanwhile.
    pub fn refused(&mut self, name: &str, attempt: u64, error: ErrorInfo) {
        if self.attempts.get(name) != Some(&attempt) {
            return;
        }
        self.attempts.remove(name);
        self.drop_questions(name);
        let status = Status {
            state: State::Failed,
            profile: Some(name.to_owned()),
            error: Some(error),
            owned: true,
            ..Status::default()
        };
        self.statuses.insert(name.to_owned(), status);
    }

    /// True while the user has not taken this attempt back.
    #[must_use]
    pub fn wants(&self, name: &str, attempt: u64) -> bool {
        self.attempts.get(name) == Some(&attempt)
    }

    /// The user wants the connection shown to end. Returns its profile.
    pub fn end(&mut self) -> Option<String> {
        let name = self.shown().profile.clone()?;
        self.attempts.remove(&name);
        self.to_remember.remove(&name);
        self.drop_questions(&name);
        if let Some(status) = self.statuses.get_mut(&name) {
            status.state = State::Disconnecting;
        }
        Some(name)
    }

    /// The helper says that this profile is down as the user wished, by reply rather than by push. That the attempt
    /// failed by being ended is no news then.
    pub fn ended(&mut self, name: &str) {
        let over = |status: &Status| matches!(status.state, State::Disconnecting | State::Failed);
        if self.statuses.get(name).is_some_and(over) {
            self.statuses.remove(name);
            self.totals.remove(name);
        }
    }

    /// The user looks at another profile; failures of it are forgotten.
    pub fn select(&mut self, name: &str) {
        if self.knows(Some(name)) {
            self.selected = Some(name.to_owned());
            self.notice = None;
        }
    }

    /// The helper asks for credentials.
    pub fn ask(&mut self, request: CredentialRequest, can_remember: bool) {
        self.questions.retain(|question| question.request.profile != request.profile);
        self.questions.push(Question { request, can_remember });
    }

    /// The user has answered, or given up: the question is gone. Returns it.
    pub fn take_question(&mut self, id: u64) -> Option<CredentialRequest> {
        let at = self.questions.iter().position(|question| question.request.id == id)?;
        Some(self.questions.remove(at).request)
    }

    /// Credentials to put into the keyring once the login has worked.
    pub fn remember_later(&mut self, name: &str, credentials: Credentials) {
        self.to_remember.insert(name.to_owned(), credentials);
    }

    /// The keyring holds the password of this profile, or does not.
    pub fn set_remembered(&mut self, name: &str, remembered: bool) {
        if remembered {
            self.remembered.insert(name.to_owned());
        } else {
            self.remembered.remove(name);
        }
    }

    /// True when the keyring holds the password of this profile.
    #[must_use]
    pub fn is_remembered(&self, name: &str) -> bool {
        self.remembered.contains(name)
    }

    /// What is kept for the next run: the profile chosen, and whose passwords are in the keyring.
    #[must_use]
    pub fn to_keep(&self) -> (Option<String>, BTreeSet<String>) {
        (self.selected.clone(), self.remembered.clone())
    }

    /// A file to look at before it is saved; `None`: not any more.
    pub fn set_import(&mut self, import: Option<PendingImport>) {
        self.import = import;
        self.notice = None;
    }

    /// The file that is looked at.
    #[must_use]
    pub fn import(&self) -> Option<&PendingImport> {
        self.import.as_ref()
    }

    /// Something did not work, or has been read.
    pub fn set_notice(&mut self, notice: Option<ErrorInfo>) {
        self.notice = notice;
    }

    /// The profiles, as the helper lists them.
    #[must_use]
    pub fn profiles(&self) -> &[ProfileSummary] {
        &self.profiles
    }

    /// Whether there is a helper.
    #[must_use]
    pub fn helper(&self) -> Helper {
        self.helper
    }

    /// The profile that the big button would connect.
    #[must_use]
    pub fn selected(&self) -> Option<&str> {
        self.selected.as_deref()
    }

    /// The connection shown: the chosen profile's if it has one, else any that is up, else the chosen one's failure.
    #[must_use]
    pub fn shown(&self) -> Status {
        let chosen = self.selected.as_ref().and_then(|name| self.statuses.get(name));
        chosen
            .filter(|status| status.state.is_active())
            .or_else(|| self.statuses.values().find(|status| status.state.is_active()))
            .or(chosen)
            .cloned()
            .unwrap_or_default()
    }

    /// Traffic of the connection shown, while it has any.
    #[must_use]
    pub fn shown_totals(&self) -> Option<(String, Totals)> {
        let status = self.shown();
        let name = status.profile?;
        match status.state {
            State::Connected | State::Reconnecting => {
                let totals = self.totals.get(&name).copied().unwrap_or_default();
                Some((name, totals))
            }
            State::Disconnected
            | State::Connecting
            | State::Disconnecting
            | State::Blocked
            | State::Failed => None,
        }
    }

    /// What the window shows.
    #[must_use]
    pub fn view(&self) -> AppView {
        AppView {
            helper: self.helper,
            helper_error: self.helper_error.clone(),
            profiles: self
                .profiles
                .iter()
                .map(|summary| ProfileView {
                    summary: summary.clone(),
                    remembered: self.remembered.contains(&summary.name),
                })
                .collect(),
            selected: self.selected.clone(),
            // Counters go the other way, once a second: they do not make a new view.
            status: { Status { totals: Totals::default(), ..self.shown() } },
            question: self.questions.first().map(|question| QuestionView {
                id: question.request.id,
                profile: question.request.profile.clone(),
                fields: question.request.fields.clone(),
                reason: question.request.reason,
                user: question.request.user.clone(),
                can_remember: question.can_remember,
            }),
            import: self.import.as_ref().map(|import| import.view.clone()),
            notice: self.notice.clone(),
        }
    }

    fn knows(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.profiles.iter().any(|profile| profile.name == name))
    }

    fn drop_questions(&mut self, name: &str) {
        self.questions.retain(|question| question.request.profile != name);
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
