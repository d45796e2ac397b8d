//! The rights of the OAuth client for the calls of a kind of job.

use genfleet_job::Kind;

/// The rights that a kind of job needs. The platform knows permissions, which the roles of the client have. Scopes are
/// asked for with the token; the endpoints of the tutorials have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Scopes, which are asked for with the token.
    pub scopes: &'static [&'static str],
    /// Permissions, which are granted to the client's roles and never requested.
    pub permissions: &'static [&'static str],
}

impl From<&'static [&'static str]> for Rights {
    fn from(scopes: &'static [&'static str]) -> Self {
        Self { scopes, permissions: &[] }
    }
}

/// The rights of each kind that a process works.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindRights(Vec<(Kind, Rights)>);

impl KindRights {
    pub(crate) fn new<R: Into<Rights>>(kinds: Vec<(Kind, R)>) -> Self {
        Self(kinds.into_iter().map(|(kind, rights)| (kind, rights.into())).collect())
    }

    /// The scopes of all kinds, each once, as a token request names them; empty if no kind has any.
    pub(crate) fn scope(&self) -> String {
        let mut scopes: Vec<&str> = self.0.iter().flat_map(|(_, rights)| rights.scopes.iter().copied()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes.join(" ")
    }

    /// Describes the rights that `kind` needs, e.g. `the permissions routing:queue:view`.
    pub(crate) fn needed_by(&self, kind: Kind) -> String {
        let found = self.0.iter().find(|(each, _)| *each == kind);
        let Rights { scopes, permissions } = found.map(|(_, rights)| *rights).unwrap_or_default();
        let listed = [("scopes", scopes.join(" ")), ("permissions", permissions.join(", "))];
        let named = listed.iter().filter(|(_, names)| !names.is_empty());
        let texts: Vec<String> = named.map(|(what, names)| format!("the {what} {names}")).collect();
        if texts.is_empty() { "other permissions".to_owned() } else { texts.join(" and ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_named_and_never_asked_for_with_the_token() {
        let scopes = Rights::from(&["files:write", "files:read"][..]);
        let permissions = Rights { permissions: &["routing:queue:view", "architect:flow:view"], ..Rights::default() };
        let rights = KindRights::new(vec![(Kind::FileScan, scopes), (Kind::CdnPurge, permissions)]);
        assert_eq!(rights.scope(), "files:read files:write");
        assert_eq!(rights.needed_by(Kind::FileScan), "the scopes files:write files:read");
        assert_eq!(rights.needed_by(Kind::CdnPurge), "the permissions routing:queue:view, architect:flow:view");
        assert_eq!(KindRights::new(vec![(Kind::CdnPurge, permissions)]).scope(), "");
    }
}
