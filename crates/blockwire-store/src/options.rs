//! What a store is opened with. The textual grammar (`ram:1G?file=…`) is parsed by the control plane; here arrive
//! values, and the few options that belong to one kind of store as text.

use std::collections::BTreeMap;

use crate::error::{ErrorKind, StoreError};
use crate::op::OpKind;

/// Options every kind of store understands.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Refuse every change, and open what lies behind for reading only.
    pub read_only: bool,
    /// Bytes. `ram` and `null` need it; a file that is missing is created with it; for one that exists it must match.
    pub create_size: Option<u64>,
    /// Bytes of a logical block; the size must be a multiple of it.
    pub block_size: u32,
    /// Bypass the page cache (O_DIRECT) where offsets and lengths allow it.
    pub direct: bool,
    /// The serial number the user wants, passed through into [`crate::StoreIdentity`].
    pub serial: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { read_only: false, create_size: None, block_size: 512, direct: false, serial: None }
    }
}

/// One filter: its name and its parameters, as `NAME:key=value,…` gives them.
#[derive(Clone, Debug, Default)]
pub struct FilterSpec {
    /// `check`, `delay`, `fault` or `readonly`.
    pub name: String,
    /// The filter's own parameters.
    pub params: BTreeMap<String, String>,
}

/// Typed access to text parameters that refuses the ones nobody asked for.
pub(crate) struct Params<'a> {
    owner: &'static str,
    map: &'a BTreeMap<String, String>,
}

impl<'a> Params<'a> {
    /// Checks that `map` has only keys from `known`.
    pub(crate) fn new(
        owner: &'static str, map: &'a BTreeMap<String, String>, known: &[&str],
    ) -> Result<Self, StoreError> {
        for key in map.keys() {
            if !known.contains(&key.as_str()) {
                let list = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                return Err(invalid(format!("{owner} has no option {key:?} (it has: {list})")));
            }
        }
        Ok(Self { owner, map })
    }

    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.map.get(key).map(String::as_str)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, StoreError> {
        self.text(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| invalid(format!("{}: option {key}={text:?} is not a number it can use", self.owner)))
            })
            .transpose()
    }

    /// A time: `250us`, `10ms`, `1.5s`; a bare number is milliseconds.
    pub(crate) fn duration(&self, key: &str) -> Result<Option<std::time::Duration>, StoreError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let unit = match &text[split..] {
            "us" => 1e-6,
            "ms" | "" => 1e-3,
            "s" => 1.0,
            _ => f64::NAN,
        };
        let seconds = text[..split].parse::<f64>().unwrap_or(f64::NAN) * unit;
        // try_from_secs_f64 refuses NaN, negative and overflowing values in one place.
        std::time::Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| {
            invalid(format!("{}: option {key}={text:?} is not a time like 250us, 10ms or 1.5s", self.owner))
        })
    }

    /// A list of operation kinds separated by `+`; nothing or `any` means all of them.
    pub(crate) fn kinds(&self, key: &str) -> Result<[bool; 7], StoreError> {
        let Some(text) = self.text(key).filter(|text| *text != "any") else {
            return Ok([true; 7]);
        };
        let mut kinds = [false; 7];
        for name in text.split('+') {
            let kind = OpKind::from_name(name).ok_or_else(|| {
                invalid(format!(
                    "{}: {name:?} is not an operation (read, write, zero, punch, copy, flush, resize)",
                    self.owner
                ))
            })?;
            kinds[kind.index()] = true;
        }
        Ok(kinds)
    }
}

pub(crate) fn invalid(message: String) -> StoreError {
    StoreError::new(ErrorKind::Invalid, message)
}
