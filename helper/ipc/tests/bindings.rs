//! The TypeScript types of the window are written from the Rust ones; this fails when the committed file is
//! stale. `ROPEWALK_UPDATE=1 cargo test -p ropewalk-ipc --test bindings` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use ropewalk_ipc::{
    ChildSa, CredentialField, CredentialReason, CredentialRequest, DnsStatus, EndpointStatus, EndpointWay,
    ErrorCode, ErrorInfo, Features, GatewayStatus, GroupState, GroupStatus, IkeSa, Imported, InterfaceKind,
    LeaseStatus, Method, PathState, PathStatus, Policy, Preview, ProfilePaths, ProfileShown, ProfileSource,
    ProfileSummary, State, Status, Totals, Traffic,
};
use ts_rs::TS;

#[test]
fn the_committed_typescript_types_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/src/lib/generated/ipc.ts");
    let expected = bindings();
    if std::env::var_os("ROPEWALK_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} is stale: run this test with ROPEWALK_UPDATE=1", path.display());
}

fn bindings() -> String {
    let config = ts_rs::Config::new();
    let mut text =
        String::from("// Written by helper/ipc/tests/bindings.rs from the Rust types. Do not edit.\n");
    macro_rules! declare {
        ($($type:ty),+ $(,)?) => {
            $( text.push_str(&format!("\nexport {}\n", <$type>::decl(&config))); )+
        };
    }
    declare!(
        State,
        Status,
        GatewayStatus,
        DnsStatus,
        LeaseStatus,
        IkeSa,
        ChildSa,
        PathState,
        InterfaceKind,
        PathStatus,
        GroupState,
        GroupStatus,
        EndpointWay,
        EndpointStatus,
        Features,
        Totals,
        Traffic,
        ErrorCode,
        ErrorInfo,
        Imported,
        ProfileSource,
        ProfileSummary,
        ProfileShown,
        ProfilePaths,
        Preview,
        Method,
        Policy,
        ropewalk_profile::AddressSource,
        CredentialRequest,
        CredentialField,
        CredentialReason,
    );
    text
}
