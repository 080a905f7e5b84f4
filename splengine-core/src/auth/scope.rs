//! Rights of callers: `Scope` is one, `Scopes` a set of them.

use std::fmt;
use std::str::FromStr;

/// Right of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Right to run commands.
    Execute,
    /// Right to have own terminal sessions.
    Sessions,
    /// Right to watch own terminal sessions: without [`Sessions`](Self::Sessions) neither to type in
    /// them, nor to make, change or end any.
    Watch,
    /// Right to read and write the files that the engine serves.
    Files,
    /// Right to see and cancel the executions of all callers; not their sessions or batches. A user has
    /// it only where it is given by name: it is not in [`Scopes::USER`].
    Admin,
}

impl Scope {
    /// Every right there is.
    pub const ALL: &[Self] =
        &[Self::Execute, Self::Sessions, Self::Watch, Self::Files, Self::Admin];

    /// Whether it is a right over one's own things, which every user has. Whoever adds a right says so here.
    const fn is_of_every_user(self) -> bool {
        match self {
            Self::Execute | Self::Sessions | Self::Watch | Self::Files => true,
            Self::Admin => false,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Returns the name of the scope in configuration and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Sessions => "sessions",
            Self::Watch => "watch",
            Self::Files => "files",
            Self::Admin => "admin",
        }
    }
}

/// A set of rights.
///
/// ```
/// use splengine_core::Scope;
/// use splengine_core::auth::Scopes;
///
/// let of_user = Scopes::from_iter([Scope::Execute, Scope::Files]);
/// let of_token = Scopes::from_iter([Scope::Execute, Scope::Sessions]);
/// assert_eq!(of_token.restricted_to(of_user), Scopes::NONE.with(Scope::Execute));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// The empty set of rights.
    pub const NONE: Self = Self(0);
    /// Every right there is.
    pub const ALL: Self = {
        let (mut all, mut index) = (0, 0);
        while index < Scope::ALL.len() {
            all |= Scope::ALL[index].bit();
            index += 1;
        }
        Self(all)
    };

    /// Every right over one's own things: all but [`Scope::Admin`].
    pub const USER: Self = {
        let (mut user, mut index) = (0, 0);
        while index < Scope::ALL.len() {
            if Scope::ALL[index].is_of_every_user() {
                user |= Scope::ALL[index].bit();
            }
            index += 1;
        }
        Self(user)
    };

    /// Returns the rights and one more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope.bit())
    }

    /// Returns whether these rights include `scope`.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the rights that are in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the rights that are in `bound`, too. The right to have sessions includes the right to
    /// watch them: a bound of `watch` reduces `sessions` to `watch`.
    #[must_use]
    pub fn restricted_to(self, bound: Self) -> Self {
        let both = Self(self.complete().0 & bound.complete().0);
        let is_named = self.contains(Scope::Watch) && bound.contains(Scope::Watch);
        // What `sessions` brings with it need not be said.
        if both.contains(Scope::Sessions) && !is_named {
            Self(both.0 & !Scope::Watch.bit())
        } else {
            both
        }
    }

    /// Returns whether `bound` lets its holder do all that these rights do.
    #[must_use]
    pub fn is_within(self, bound: Self) -> bool {
        self.0 & !bound.complete().0 == 0
    }

    /// Returns the rights one by one, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains(*scope))
    }

    /// With what they bring with them.
    fn complete(self) -> Self {
        if self.contains(Scope::Sessions) { self.with(Scope::Watch) } else { self }
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A text that names no [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; there are: {all}", all = all_names())]
#[non_exhaustive]
pub struct ParseScopeError(String);

fn all_names() -> String {
    Scope::ALL.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| ParseScopeError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets() -> impl Iterator<Item = Scopes> {
        (0..=Scopes::ALL.0).map(Scopes)
    }

    #[test]
    fn every_scope_parses_back() {
        for &scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        assert_eq!(Scopes::from_iter(Scope::ALL.iter().copied()), Scopes::ALL);
    }

    #[test]
    fn no_further_right_is_every_users_by_itself() {
        let names: Vec<_> = Scopes::USER.iter().map(Scope::name).collect();
        assert_eq!(names, ["execute", "sessions", "watch", "files"]);
    }

    #[test]
    fn a_bound_only_takes_away() {
        for (set, bound) in sets().flat_map(|set| sets().map(move |bound| (set, bound))) {
            let left = set.restricted_to(bound);
            assert!(left.is_within(set) && left.is_within(bound), "{set:?} {bound:?}: {left:?}");
            for &scope in Scope::ALL {
                let both = set.complete().contains(scope) && bound.complete().contains(scope);
                assert_eq!(left.complete().contains(scope), both, "{set:?} {bound:?}: {scope:?}");
            }
            assert_eq!(set.restricted_to(Scopes::ALL), set);
            assert_eq!(set.is_within(bound), set.restricted_to(bound).complete() == set.complete());
        }
    }
}
