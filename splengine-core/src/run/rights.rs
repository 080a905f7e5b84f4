//! The rights to run commands, and to see and cancel executions.

use crate::auth::{Caller, Scope};
use crate::execute::ExecuteError;
use crate::user_name::UserName;

/// Refuses a caller who may not run commands.
pub(crate) fn may_execute(caller: &Caller) -> Result<(), ExecuteError> {
    if caller.may(Scope::Execute) {
        return Ok(());
    }
    Err(ExecuteError::Forbidden { user: caller.user().to_string(), scope: Scope::Execute.name() })
}

/// Whose executions a caller may see and cancel.
pub(super) enum Reach<'a> {
    Own(&'a UserName),
    All,
}

impl<'a> Reach<'a> {
    pub(super) fn of(caller: &'a Caller) -> Result<Self, ExecuteError> {
        if caller.may(Scope::Admin) {
            return Ok(Self::All);
        }
        may_execute(caller)?;
        Ok(Self::Own(caller.user()))
    }

    pub(super) fn covers(&self, user: &UserName) -> bool {
        match self {
            Self::Own(own) => *own == user,
            Self::All => true,
        }
    }
}
