use super::*;
use ropewalk_ipc::{CredentialField, CredentialReason, ErrorCode, Method, ProfileSource, Secret};

fn profile(name: &str) -> ProfileSummary {
    ProfileSummary {
        name: name.to_owned(),
        gateway: "vpn.example.com".to_owned(),
        method: Method::EapMschapv2,
        user: Some("alice".to_owned()),
        source: ProfileSource::User,
        missing: vec!["password".to_owned()],
        error: None,
    }
}

fn status(name: &str, state: State) -> Status {
    Status { state, profile: Some(name.to_owned()), owned: true, ..Status::default() }
}

fn model() -> Model {
    let mut model = Model::default();
    model.online();
    model.set_profiles(vec![profile("Lab"), profile("Office")]);
    model
}

fn question(id: u64, name: &str) -> CredentialRequest {
    CredentialRequest {
        id,
        profile: name.to_owned(),
        fields: vec![CredentialField::Password],
        reason: CredentialReason::Missing,
        user: Some("alice".to_owned()),
    }
}

#[test]
fn the_first_profile_is_chosen_until_another_is_and_again_when_that_is_gone() {
    let mut model = model();
    assert_eq!(model.selected(), Some("Lab"));
    model.select("Office");
    model.select("nowhere");
    assert_eq!(model.selected(), Some("Office"));
    model.set_profiles(vec![profile("Lab")]);
    assert_eq!(model.selected(), Some("Lab"));
}

#[test]
fn a_click_shows_connecting_at_once_and_a_refusal_shows_why() {
    let mut model = model();
    let (attempt, others) = model.begin("Lab");
    assert!(others.is_empty());
    assert_eq!(model.shown().state, State::Connecting);
    model.refused("Lab", attempt, ErrorInfo::new(ErrorCode::NotAuthorised, "no", "ask"));
    let shown = model.shown();
    assert_eq!(shown.state, State::Failed);
    assert_eq!(shown.error.map(|error| error.code), Some(ErrorCode::NotAuthorised));
}

#[test]
fn an_attempt_taken_back_does_not_fail_afterwards() {
    let mut model = model();
    let (attempt, _) = model.begin("Lab");
    assert_eq!(model.end().as_deref(), Some("Lab"));
    assert!(!model.wants("Lab", attempt));
    model.set_status(status("Lab", State::Failed));
    model.ended("Lab");
    model.refused("Lab", attempt, ErrorInfo::new(ErrorCode::Failed, "cancelled", ""));
    assert_eq!(model.shown().state, State::Disconnected);
}

#[test]
fn connecting_one_profile_names_the_others_that_are_up() {
    let mut model = model();
    model.set_status(status("Lab", State::Connected));
    let (_, others) = model.begin("Office");
    assert_eq!(others, ["Lab"]);
}

#[test]
fn a_connection_that_is_up_is_shown_even_when_another_profile_is_chosen() {
    let mut model = model();
    model.select("Office");
    model.set_status(status("Lab", State::Connected));
    assert_eq!(model.shown().profile.as_deref(), Some("Lab"));
    model.set_status(status("Lab", State::Disconnected));
    assert_eq!(model.shown(), Status::default());
}

#[test]
fn other_users_connections_are_not_shown() {
    let mut model = model();
    model.set_status(Status { owned: false, ..status("Lab", State::Connected) });
    assert_eq!(model.shown().state, State::Disconnected);
}

#[test]
fn a_password_is_remembered_only_after_it_has_worked() {
    let credentials = Credentials { password: Some(Secret::from("x")), ..Credentials::default() };
    let mut model = model();
    model.begin("Lab");
    model.remember_later("Lab", credentials.clone());
    assert_eq!(model.set_status(status("Lab", State::Failed)), Consequence::None);
    assert_eq!(model.set_status(status("Lab", State::Connected)), Consequence::None);
    model.remember_later("Lab", credentials.clone());
    assert_eq!(
        model.set_status(status("Lab", State::Connected)),
        Consequence::Remember("Lab".to_owned(), credentials)
    );
}

#[test]
fn a_question_goes_when_it_is_answered_or_its_attempt_ends() {
    let mut model = model();
    model.ask(question(7, "Lab"), true);
    assert_eq!(model.view().question.map(|question| question.id), Some(7));
    assert!(model.take_question(8).is_none());
    assert!(model.take_question(7).is_some());
    model.ask(question(9, "Lab"), true);
    model.set_status(status("Lab", State::Failed));
    assert!(model.view().question.is_none());
}

#[test]
fn without_the_helper_no_connection_is_claimed() {
    let mut model = model();
    model.set_status(status("Lab", State::Connected));
    model.ask(question(1, "Lab"), true);
    model.offline(Helper::Absent, ErrorInfo::new(ErrorCode::HelperUnreachable, "gone", "start it"));
    let view = model.view();
    assert_eq!((view.helper, view.status.state), (Helper::Absent, State::Disconnected));
    assert!(view.question.is_none());
}

#[test]
fn counters_do_not_make_a_new_view() {
    let mut model = model();
    model.set_status(status("Lab", State::Connected));
    let before = model.view();
    let totals = Totals { bytes_in: 10, bytes_out: 20, ..Totals::default() };
    let traffic = Traffic { profile: Some("Lab".to_owned()), owned: true, totals, ..Traffic::default() };
    model.set_traffic(&traffic);
    assert_eq!(model.view(), before);
    assert_eq!(model.shown_totals(), Some(("Lab".to_owned(), totals)));
}

#[test]
fn a_connection_of_an_unknown_profile_asks_for_the_list_again() {
    assert_eq!(model().set_status(status("New", State::Connecting)), Consequence::ListProfiles);
}
