//! Users, their tokens and their rights: one source for all servers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::auth::Caller;
use crate::auth::Scopes;
use crate::auth::{
    AuthError, Authenticator, CredentialSource, Credentials, Revocation, TokenError, TokenHash,
};
use crate::user_name::UserName;

/// Contents that [`Accounts`] are made from: users with their rights, and their tokens.
///
/// A user's rights are those of [`user`](Self::user). Those of a user who is not named there are the
/// rights of all their tokens together, or every right but `admin` ([`Scopes::USER`]) if they have no
/// token and [had](Accounts::replace) none; never more than those of [`others`](Self::others).
///
/// ```
/// use splengine_core::Scope;
/// use splengine_core::auth::{AccountList, Scopes, Secret, TokenHash};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (alice, bob) = ("alice".parse()?, "bob".parse()?);
/// let mut list = AccountList::new()
///     .user(alice, Scopes::NONE.with(Scope::Execute))
///     .others(Scopes::NONE.with(Scope::Files));
/// // A token gives no right that its user does not have.
/// let hash = TokenHash::of(&Secret::new("a-long-and-random-token"))?;
/// list.token(hash, "alice".parse()?, Scopes::ALL)?;
/// assert_eq!(list.rights(&"alice".parse()?), Scopes::NONE.with(Scope::Execute));
/// assert_eq!(list.rights(&bob), Scopes::NONE.with(Scope::Files));
/// assert_eq!(list.users_with_excess_scopes().map(|user| user.as_str()).collect::<Vec<_>>(), ["alice"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AccountList {
    users: HashMap<UserName, Scopes>,
    others: Scopes,
    tokens: Vec<(TokenHash, Entry)>,
    anonymous: Option<UserName>,
    /// Users who had tokens in a list that this one has replaced, and have none any more.
    former: HashSet<UserName>,
}

#[derive(Clone)]
struct Entry {
    user: UserName,
    scopes: Scopes,
}

/// Users, their tokens and their rights, for all servers of a process. All clones share one state.
///
/// Adapters [authenticate](Authenticator) with it; one that recognises users by other credentials than
/// tokens, such as SSH keys, gets their rights from [`caller`](Self::caller). So a user has the same
/// rights on all servers.
///
/// All of it can be [replaced](Self::replace) at run time: callers that were recognised by a token that
/// was removed, or that have fewer rights than before, are then [revoked](Caller::is_revoked).
///
/// ```
/// use splengine_core::Scope;
/// use splengine_core::auth::{AccountList, Accounts, Scopes, Secret, TokenHash};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hash = TokenHash::of(&Secret::new("a-long-and-random-token"))?;
/// let mut list = AccountList::new();
/// list.token(hash, "alice".parse()?, Scopes::NONE.with(Scope::Execute))?;
/// let accounts = Accounts::new(list);
///
/// // By her SSH key she is granted the same.
/// let alice = accounts.caller(&"alice".parse()?);
/// assert!(alice.may(Scope::Execute) && !alice.may(Scope::Files));
///
/// accounts.replace(AccountList::new().user("alice".parse()?, Scopes::NONE));
/// assert!(alice.is_revoked());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Accounts(Arc<RwLock<State>>);

struct State {
    list: AccountList,
    tokens: Vec<(TokenHash, Account)>,
    anonymous: Option<Account>,
    /// Those that were recognised by something else than a token.
    users: HashMap<UserName, Account>,
}

/// What a caller is made of, and taken back by.
struct Account {
    user: UserName,
    scopes: Scopes,
    revocation: Revocation,
}

impl AccountList {
    /// Makes an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self {
            users: HashMap::new(),
            others: Scopes::ALL,
            tokens: Vec::new(),
            anonymous: None,
            former: HashSet::new(),
        }
    }

    /// Gives `user` these rights; the last call for a user counts. None of the user's tokens gives
    /// more.
    #[must_use]
    pub fn user(mut self, user: UserName, scopes: Scopes) -> Self {
        self.users.insert(user, scopes);
        self
    }

    /// Bounds the rights of all users that [`user`](Self::user) does not name. Default
    /// [`Scopes::ALL`].
    #[must_use]
    pub fn others(mut self, scopes: Scopes) -> Self {
        self.others = scopes;
        self
    }

    /// Adds a token of `user`, who may have several. The token gives those of `scopes` that its user
    /// has.
    ///
    /// # Errors
    ///
    /// [`TokenError`] when the token is there already, and is another user's or has other scopes.
    pub fn token(
        &mut self,
        token: TokenHash,
        user: UserName,
        scopes: Scopes,
    ) -> Result<(), TokenError> {
        match self.tokens.iter().find(|(other, _)| *other == token) {
            None => self.tokens.push((token, Entry { user, scopes })),
            Some((_, other)) if other.user != user => {
                return Err(TokenError::Shared(other.user.clone(), user));
            }
            Some((_, other)) if other.scopes != scopes => return Err(TokenError::Twice(user)),
            Some(_) => {}
        }
        Ok(())
    }

    /// Treats clients without credentials as `user`: every client that reaches the port has that user's
    /// rights.
    #[must_use]
    pub fn allow_anonymous(mut self, user: UserName) -> Self {
        self.anonymous = Some(user);
        self
    }

    /// Returns whether there is any token.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Returns the users with a token that names rights which the user does not have, and which the
    /// token therefore does not give.
    pub fn users_with_excess_scopes(&self) -> impl Iterator<Item = &UserName> {
        let tokens = self.tokens.iter().map(|(_, entry)| entry);
        tokens.filter(|entry| !entry.scopes.is_within(self.bound(&entry.user))).map(|it| &it.user)
    }

    /// Returns the rights of `user`: those that [`user`](Self::user) gives; else those of all of the
    /// user's tokens together, [`Scopes::NONE`] if the last token, or the name, was [removed](Accounts::replace), and
    /// [`Scopes::USER`] if there never was either, all of these bounded by [`others`](Self::others).
    #[must_use]
    pub fn rights(&self, user: &UserName) -> Scopes {
        if let Some(scopes) = self.users.get(user) {
            return *scopes;
        }
        let tokens = self.tokens.iter().filter(|(_, entry)| entry.user == *user);
        let of_tokens = tokens.map(|(_, entry)| entry.scopes).reduce(Scopes::union);
        let without = if self.former.contains(user) { Scopes::NONE } else { Scopes::USER };
        of_tokens.unwrap_or(without).restricted_to(self.others)
    }

    /// Takes over who had tokens in the list `before`, or was named there, and neither has any nor is named any more.
    fn succeed(&mut self, before: &Self) {
        let had = before.tokens.iter().map(|(_, entry)| &entry.user);
        let had = had.chain(before.users.keys()).chain(&before.former);
        let of_tokens = self.tokens.iter().map(|(_, entry)| &entry.user);
        let has: HashSet<&UserName> = self.users.keys().chain(of_tokens).collect();
        let former: HashSet<UserName> = had.filter(|user| !has.contains(user)).cloned().collect();
        for user in former.difference(&before.former) {
            tracing::warn!(%user, "the user is not named any more and has no token: no rights until named or given one");
        }
        self.former = former;
    }

    fn bound(&self, user: &UserName) -> Scopes {
        self.users.get(user).copied().unwrap_or(self.others)
    }
}

impl Default for AccountList {
    fn default() -> Self {
        Self::new()
    }
}

impl Accounts {
    /// Makes the accounts of `list`.
    #[must_use]
    pub fn new(list: AccountList) -> Self {
        let empty = State {
            list: AccountList::new(),
            tokens: Vec::new(),
            anonymous: None,
            users: HashMap::new(),
        };
        let accounts = Self(Arc::new(RwLock::new(empty)));
        accounts.replace(list);
        accounts
    }

    /// Returns the caller for `user`, who was recognised by something else than a token.
    #[must_use]
    pub fn caller(&self, user: &UserName) -> Caller {
        let mut state = self.write();
        if let Some(held) = state.users.get(user) {
            return held.caller();
        }
        if state.users.len() >= MAX_IDLE_USERS {
            state.users.retain(|_, held| held.revocation.is_used());
        }
        let held = Account::new(user, state.list.rights(user));
        let caller = held.caller();
        state.users.insert(user.clone(), held);
        caller
    }

    /// Replaces the whole list in one step. Revokes the callers of tokens that were removed, belong to
    /// another user now or give fewer rights, and those of users who have fewer rights. Other callers
    /// are not disturbed; additional rights take effect when their credentials are checked the next
    /// time.
    ///
    /// A user who had tokens or was [named](AccountList::user), and neither has any nor is named any more, has no rights
    /// until that is so again, also where they are recognised by something else: to take something away never gives
    /// rights.
    ///
    /// Returns the number of tokens and users whose callers were revoked.
    #[expect(clippy::must_use_candidate, reason = "the count is for a log")]
    pub fn replace(&self, mut list: AccountList) -> usize {
        let mut state = self.write();
        list.succeed(&state.list);
        let mut revoked = 0;
        let mut go_on = |before: Option<Account>, user: &UserName, scopes: Scopes| {
            let mut held = Account::new(user, scopes);
            match before {
                Some(before) if before.lasts(&held) => held.revocation = before.revocation,
                Some(before) => {
                    before.revocation.revoke();
                    revoked += 1;
                }
                None => {}
            }
            held
        };
        let mut before: HashMap<TokenHash, Account> =
            std::mem::take(&mut state.tokens).into_iter().collect();
        for (hash, Entry { user, scopes }) in &list.tokens {
            let scopes = scopes.restricted_to(list.bound(user));
            let held = go_on(before.remove(hash), user, scopes);
            state.tokens.push((*hash, held));
        }
        let nobody = state.anonymous.take();
        let (anonymous, gone) = match &list.anonymous {
            Some(user) => (Some(go_on(nobody, user, list.rights(user))), None),
            None => (None, nobody),
        };
        state.anonymous = anonymous;
        let users = std::mem::take(&mut state.users).into_iter();
        state.users = users
            .filter(|(_, held)| held.revocation.is_used())
            .map(|(user, held)| {
                let held = go_on(Some(held), &user, list.rights(&user));
                (user, held)
            })
            .collect();
        state.list = list;
        for held in before.into_values().chain(gone) {
            held.revocation.revoke();
            revoked += 1;
        }
        revoked
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn new(user: &UserName, scopes: Scopes) -> Self {
        Self { user: user.clone(), scopes, revocation: Revocation::new() }
    }

    fn caller(&self) -> Caller {
        Caller::from(self.user.clone()).with_scopes(self.scopes).revocable(&self.revocation)
    }

    /// Whether those who were recognised by it may go on where `next` takes its place.
    fn lasts(&self, next: &Self) -> bool {
        self.user == next.user && self.scopes.is_within(next.scopes)
    }
}

impl Authenticator for Accounts {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        let state = self.read();
        let (held, refusal) = match &credentials {
            Credentials::None => (state.anonymous.as_ref(), AuthError::Missing),
            Credentials::Bearer(token) => {
                (TokenHash::find(token, &state.tokens), AuthError::Invalid)
            }
            _ => (None, AuthError::Unsupported),
        };
        held.map(Account::caller).ok_or(refusal)
    }
}

impl fmt::Debug for AccountList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountList")
            .field("users", &self.users)
            .field("others", &self.others)
            .field("tokens", &self.tokens.len())
            .field("anonymous", &self.anonymous)
            .finish()
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accounts").field(&self.read().list).finish()
    }
}

/// Beyond so many users, those are forgotten that nobody is any more.
const MAX_IDLE_USERS: usize = 1024;

#[cfg(test)]
mod tests;
