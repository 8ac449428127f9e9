//! Reads the golden vectors of `tests/vectors` in the plain form that the README there describes.

use std::collections::BTreeMap;

/// One vector: plain keys, `'''` blocks as bytes, and the fields.
#[derive(Default)]
pub struct Vector {
    pub text: BTreeMap<String, String>,
    pub blocks: BTreeMap<String, Vec<u8>>,
    pub fields: BTreeMap<String, String>,
}

impl Vector {
    pub fn name(&self) -> &str {
        &self.text["name"]
    }

    pub fn block(&self, key: &str) -> Vec<u8> {
        self.blocks.get(key).cloned().unwrap_or_default()
    }
}

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

pub fn number(text: &str) -> u64 {
    text.strip_prefix("0x").map_or_else(|| text.parse().unwrap(), |digits| u64::from_str_radix(digits, 16).unwrap())
}

/// Reads the plain form that the directory's README describes.
pub fn vectors(file: &str) -> Vec<Vector> {
    let path = format!("{}/../../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut all: Vec<Vector> = Vec::new();
    let mut fields = false;
    let mut block: Option<(String, Vec<u8>)> = None;
    for line in text.lines() {
        let line = line.split('#').next().unwrap().trim();
        if let Some((key, mut bytes)) = block.take() {
            if line == "'''" {
                all.last_mut().unwrap().blocks.insert(key, bytes);
            } else {
                bytes.extend(hex(line));
                block = Some((key, bytes));
            }
            continue;
        }
        match line {
            "" => {}
            "[[vector]]" => {
                all.push(Vector::default());
                fields = false;
            }
            "[vector.fields]" => fields = true,
            _ => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{file}: {line}"));
                let (key, value) = (key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
                let vector = all.last_mut().unwrap();
                if value == "'''" {
                    block = Some((key, Vec::new()));
                } else if fields {
                    vector.fields.insert(key, value);
                } else {
                    vector.text.insert(key, value);
                }
            }
        }
    }
    assert!(!all.is_empty(), "{file} has no vector");
    all
}

pub fn pdus() -> Vec<Vector> {
    let mut all = vectors("pdu_requests.toml");
    all.extend(vectors("pdu_responses.toml"));
    all
}
