//! From a parsed store description to a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::StoreError;
use crate::options::{FilterSpec, OpenOptions, invalid};
use crate::{Store, filters, stores};

/// Opens a store and stacks filters on it. May block (it opens files): not for a reactor's thread.
///
/// * `ram`: memory of `create_size` bytes, `path` being a name that may be empty; with `file=PATH` in `extra`, a
///   mapping of that file, allocated in full.
/// * `file` (or no scheme at all): a regular file or a block device, by what `path` is. `extra`: `io=auto|pool|uring`,
///   `threads=N`.
/// * `null`: reads zeros, forgets writes.
///
/// The first of `filters` is the outermost: it sees an operation first.
///
/// # Errors
/// Unknown schemes, options and filters, sizes that are missing or no multiple of the block size
/// ([`crate::ErrorKind::Invalid`]), an existing file of another size ([`crate::ErrorKind::WouldResize`]), a file that
/// somebody else has open ([`crate::ErrorKind::Locked`]), and what the operating system says.
pub fn open(
    scheme: &str, path: &str, options: &OpenOptions, extra: &BTreeMap<String, String>, filters: &[FilterSpec],
) -> Result<Arc<dyn Store>, StoreError> {
    // Before anything is created: a filter's misspelt parameter must not leave a file behind.
    let makers = filters.iter().map(filters::Maker::new).collect::<Result<Vec<_>, _>>()?;
    let store = match scheme {
        "ram" => stores::open_ram(path, options, extra),
        "file" | "" => stores::open_file(path, options, extra),
        "null" => stores::open_null(path, options, extra),
        other => Err(invalid(format!("{other}: is no kind of store here (ram, file, null)"))),
    }?;
    Ok(filters::apply_all(store, makers))
}
