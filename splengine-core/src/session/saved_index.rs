//! The index of saved sessions: whose they are, and what they take. It is read once, when an engine
//! starts, so that no caller's request reads files of others.

use std::collections::HashMap;

use crate::ids::SavedId;
use crate::session::{SavedInfo, SessionError};
use crate::user_name::UserName;

#[derive(Debug, Default)]
pub(crate) struct SavedIndex {
    owners: HashMap<SavedId, UserName>,
    of: HashMap<UserName, Owned>,
}

/// The saved sessions of one caller.
#[derive(Debug, Default)]
struct Owned {
    saved: HashMap<SavedId, (SavedInfo, u64)>,
    /// Number, and bytes, of those that are being written.
    reserved: (usize, u64),
}

/// Bounds on the saved sessions of one caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SavedBounds {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
}

impl SavedIndex {
    /// Reserves a place for one more of `user`, of so many bytes, where there are bounds only within
    /// these. It is to be [released](Self::release) in any case.
    ///
    /// # Errors
    ///
    /// [`SessionError::CallerLimit`].
    pub(crate) fn reserve(
        &mut self,
        user: &UserName,
        bytes: u64,
        bounds: Option<SavedBounds>,
    ) -> Result<(), SessionError> {
        let owned = self.of.entry(user.clone()).or_default();
        if let Some(bounds) = bounds {
            let refused = |what, limit| Err(SessionError::CallerLimit { what, limit });
            if owned.saved.len() + owned.reserved.0 >= bounds.count {
                return refused("saved sessions", bounds.count);
            }
            let taken = owned.saved.values().map(|(_, bytes)| bytes).sum::<u64>();
            if taken.saturating_add(owned.reserved.1).saturating_add(bytes) > bounds.bytes {
                let limit = usize::try_from(bounds.bytes).unwrap_or(usize::MAX);
                return refused("bytes of saved sessions", limit);
            }
        }
        owned.reserved.0 += 1;
        owned.reserved.1 += bytes;
        Ok(())
    }

    /// Gives a reserved place back.
    pub(crate) fn release(&mut self, user: &UserName, bytes: u64) {
        let Some(owned) = self.of.get_mut(user) else { return };
        owned.reserved.0 -= 1;
        owned.reserved.1 -= bytes;
        self.forget_if_empty(user);
    }

    /// Adds one that is on disk, of so many bytes.
    pub(crate) fn insert(&mut self, info: SavedInfo, bytes: u64) {
        self.owners.insert(info.id.clone(), info.user.clone());
        let owned = self.of.entry(info.user.clone()).or_default();
        owned.saved.insert(info.id.clone(), (info, bytes));
    }

    pub(crate) fn remove(&mut self, id: &SavedId) {
        let Some(user) = self.owners.remove(id) else { return };
        if let Some(owned) = self.of.get_mut(&user) {
            owned.saved.remove(id);
        }
        self.forget_if_empty(&user);
    }

    /// What is known of it; `None` for one that could not be read, or came from elsewhere since.
    pub(crate) fn get(&self, id: &SavedId) -> Option<&SavedInfo> {
        self.of.get(self.owner(id)?)?.saved.get(id).map(|(info, _)| info)
    }

    /// Whose it is; `None` for one that could not be read, or came from elsewhere since.
    pub(crate) fn owner(&self, id: &SavedId) -> Option<&UserName> {
        self.owners.get(id)
    }

    pub(crate) fn saved_of(&self, user: &UserName) -> Vec<SavedInfo> {
        let saved = self.of.get(user).into_iter().flat_map(|owned| owned.saved.values());
        saved.map(|(info, _)| info.clone()).collect()
    }

    fn forget_if_empty(&mut self, user: &UserName) {
        if self.of.get(user).is_some_and(|owned| owned.saved.is_empty() && owned.reserved.0 == 0) {
            self.of.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::ids::SessionId;
    use crate::terminal::Size;

    fn saved(user: &UserName) -> SavedInfo {
        SavedInfo {
            id: SavedId::new(),
            session_id: SessionId::new(user),
            user: user.clone(),
            name: None,
            created: SystemTime::UNIX_EPOCH,
            size: Size::default(),
            workdir: None,
        }
    }

    #[test]
    fn what_is_being_written_counts_and_others_do_not() {
        let (alice, bob): (UserName, UserName) =
            ("alice".parse().expect("a name"), "bob".parse().expect("a name"));
        let bounds = Some(SavedBounds { count: 3, bytes: 100 });
        let mut index = SavedIndex::default();
        let what = |refused: Result<(), SessionError>| match refused {
            Err(SessionError::CallerLimit { what, limit }) => (what, limit),
            other => panic!("{other:?}"),
        };
        let first = saved(&alice);
        index.insert(first.clone(), 60);
        index.reserve(&alice, 30, bounds).expect("fits");
        assert_eq!(what(index.reserve(&alice, 11, bounds)), ("bytes of saved sessions", 100));
        index.reserve(&alice, 10, bounds).expect("fits");
        assert_eq!(what(index.reserve(&alice, 0, bounds)), ("saved sessions", 3));
        index.reserve(&bob, 100, bounds).expect("is another's");
        // One that could not be written makes room, one that was keeps it.
        index.release(&alice, 30);
        index.reserve(&alice, 30, bounds).expect("fits");
        index.release(&alice, 30);
        index.insert(saved(&alice), 30);
        assert_eq!(what(index.reserve(&alice, 0, bounds)), ("saved sessions", 3));
        index.reserve(&alice, 1000, None).expect("has no bounds");
        index.release(&alice, 1000);
        assert_eq!(index.owner(&first.id), Some(&alice));
        assert_eq!(index.get(&first.id).map(|info| &info.id), Some(&first.id));
        assert_eq!(index.saved_of(&alice).len(), 2);
        assert!(index.saved_of(&bob).is_empty());
        index.remove(&first.id);
        assert_eq!(index.owner(&first.id), None);
        assert!(index.get(&first.id).is_none());
        index.reserve(&alice, 60, bounds).expect("fits");
    }

    #[test]
    fn callers_who_have_nothing_take_no_memory() {
        let alice: UserName = "alice".parse().expect("a name");
        let mut index = SavedIndex::default();
        index.reserve(&alice, 5, None).expect("has no bounds");
        index.release(&alice, 5);
        let info = saved(&alice);
        index.insert(info.clone(), 5);
        index.remove(&info.id);
        assert!(index.of.is_empty() && index.owners.is_empty());
    }
}
