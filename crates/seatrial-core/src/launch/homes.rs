//! The mount name spaces that this launcher has prepared, one for each root that plans name.

use std::sync::Arc;

use super::isolate;
use super::plan::Isolation;
use super::prepare::PlanError;
use super::sys::{Home, Host};

/// Most roots of one launcher: each has threads of its own, which stay.
const HOMES_MAX: usize = 64;

/// What makes two roots the same: a directory may be replaced by another of its name.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    root: String,
    device: u64,
    inode: u64,
    is_read_only: bool,
}

/// The prepared roots.
#[derive(Debug, Default)]
pub struct Homes {
    made: Vec<(Key, Arc<Home>)>,
}

impl Homes {
    /// The name space of a recipe's root, made when it is asked for the first time; `None` for a
    /// recipe whose child makes everything itself.
    ///
    /// # Errors
    /// The root cannot be prepared, or there are too many.
    pub fn of(
        &mut self,
        isolation: &Isolation,
        host: &Host,
    ) -> Result<Option<Arc<Home>>, PlanError> {
        let Some(root) = isolate::prepared_root(isolation) else {
            return Ok(None);
        };
        let place = rustix::fs::stat(root).map_err(PlanError::system(format!("root {root}")))?;
        let key = Key {
            root: root.to_owned(),
            device: place.st_dev,
            inode: place.st_ino,
            is_read_only: isolation.read_only_root,
        };
        if let Some((_, home)) = self.made.iter().find(|(known, _)| *known == key) {
            return Ok(Some(Arc::clone(home)));
        }
        if self.made.len() == HOMES_MAX {
            return Err(PlanError::invalid(format!(
                "isolation: {root} is a further root, expected at most {HOMES_MAX} of one launcher"
            )));
        }
        let steps = isolate::root_steps(root, isolation.read_only_root)?;
        let home = Home::make(self.made.len(), steps, host).map_err(|why| {
            PlanError::invalid(format!("preparing the root {root} for sandboxes: {why}"))
        })?;
        let home = Arc::new(home);
        self.made.push((key, Arc::clone(&home)));
        Ok(Some(home))
    }
}
