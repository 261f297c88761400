//! Creation of tasks, by callers and by what creates tasks by itself: checked, with what is kept until the commit. Knows no call of the
//! API.

pub(crate) mod continuation;
mod create;
mod kept;
pub(crate) mod managed;
mod prepared;
mod step_files;

pub(crate) use self::create::Creator;
pub(crate) use self::kept::Kept;
pub(crate) use self::managed::Scope;
pub(crate) use self::prepared::Prepared;
