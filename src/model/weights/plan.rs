//! Which tensor of which file goes under which name, and one message for everything that does not fit.

use std::collections::HashMap;
use std::path::Path;

use super::read::{Archive, Entry};
use crate::{Error, Result};

const PREFIX: &str = "transformer.";
/// Tensors named in one message before it only counts them
const NAMED: usize = 5;

/// The name without the prefix that only some files carry
fn bare(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// The causal mask and its fill value, which old versions of transformers saved as if they were weights
fn is_buffer(bare_name: &str) -> bool {
    bare_name.strip_prefix("h.").and_then(|rest| rest.split_once('.')).is_some_and(|(layer, rest)| {
        layer.bytes().all(|byte| byte.is_ascii_digit()) && matches!(rest, "attn.bias" | "attn.masked_bias")
    })
}

/// For each wanted name that the files have: the name, the file and the tensor
pub(super) fn match_names<'a>(
    folder: &Path,
    archives: &'a [Archive],
    wanted: &[(String, Vec<usize>)],
    optional: &[&str],
) -> Result<Vec<(String, &'a Archive, &'a Entry)>> {
    let mut found: HashMap<&str, (&Archive, &Entry)> = HashMap::new();
    for archive in archives {
        for entry in archive.entries.iter().filter(|entry| !is_buffer(bare(&entry.name))) {
            if let Some((other, _)) = found.insert(bare(&entry.name), (archive, entry)) {
                return Err(Error::usage(format!(
                    "tensor `{}` occurs twice: in `{}` and in `{}`",
                    entry.name,
                    other.path.display(),
                    archive.path.display()
                )));
            }
        }
    }
    let (mut reads, mut missing, mut misshapen) = (Vec::new(), Vec::new(), Vec::new());
    let embedding = found.get("wte.weight").map(|(_, entry)| entry.shape.clone());
    for (name, shape) in wanted {
        match found.remove(bare(name)) {
            Some((archive, entry)) if entry.shape == *shape => reads.push((name.clone(), archive, entry)),
            Some((_, entry)) => misshapen.push(format!("`{name}` expected {shape:?}, found {:?}", entry.shape)),
            None if optional.iter().any(|optional| bare(optional) == bare(name)) => {}
            None => missing.push(format!("`{name}` {shape:?}")),
        }
    }
    // A tied head repeats the embedding
    if let Some((_, entry)) = found.remove("lm_head.weight")
        && embedding.is_some_and(|embedding| embedding != entry.shape)
    {
        misshapen.push(format!("`lm_head.weight` has {:?}, not the shape of the embedding", entry.shape));
    }
    let mut unexpected: Vec<_> =
        found.values().map(|(_, entry)| format!("`{}` {:?}", entry.name, entry.shape)).collect();
    unexpected.sort();
    let complaints: Vec<_> = [
        complaint("missing", &missing),
        complaint("of another shape", &misshapen),
        complaint("unexpected", &unexpected),
    ]
    .into_iter()
    .flatten()
    .collect();
    if complaints.is_empty() {
        return Ok(reads);
    }
    let place = match archives {
        [one] => one.path.display(),
        _ => folder.display(),
    };
    let hint = if misshapen.is_empty() && missing.is_empty() {
        "the folder holds another kind of model; a plain GPT-2 has no such tensors"
    } else if misshapen.is_empty() {
        "the weights belong to another kind of model, or the file is incomplete"
    } else {
        "`config.json` and the weights do not belong together"
    };
    Err(Error::usage(format!("`{place}` does not fit the model: {}", complaints.join("; "))).hint(hint))
}

/// `2 tensors missing: `a` [1], `b` [2]`, at most the first few named
fn complaint(what: &str, tensors: &[String]) -> Option<String> {
    let plural = match tensors.len() {
        0 => return None,
        1 => "",
        _ => "s",
    };
    let named = tensors[..tensors.len().min(NAMED)].join(", ");
    let rest = tensors.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    Some(format!("{} tensor{plural} {what}: {named}{more}", tensors.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_masks_are_buffers() {
        for name in ["h.0.attn.bias", "h.11.attn.masked_bias"] {
            assert!(is_buffer(name), "{name}");
        }
        for name in ["h.0.attn.c_attn.bias", "h.x.attn.bias", "attn.bias", "ln_f.bias", "h.0.mlp.c_fc.bias"] {
            assert!(!is_buffer(name), "{name}");
        }
    }

    #[test]
    fn a_long_list_is_counted() {
        let names: Vec<_> = (0..7).map(|i| format!("`t{i}`")).collect();
        let text = complaint("missing", &names).unwrap();
        assert_eq!(text, "7 tensors missing: `t0`, `t1`, `t2`, `t3`, `t4` and 2 more");
        assert_eq!(complaint("missing", &names[..1]).unwrap(), "1 tensor missing: `t0`");
        assert_eq!(complaint("missing", &[]), None);
    }
}
