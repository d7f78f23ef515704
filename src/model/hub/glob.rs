//! Patterns of file names, as dataset cards use them: `*`, `?`, `[…]`, `{a,b}` within a folder, `**` across folders.

/// Whether the pattern matches the `/`-separated path
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    alternatives(pattern.trim_start_matches("./")).iter().any(|pattern| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        folders_match(&pattern, &path)
    })
}

/// The patterns that `{a,b}` stands for
fn alternatives(pattern: &str) -> Vec<String> {
    let braces = pattern.find('{').and_then(|open| Some((open, open + pattern[open..].find('}')?)));
    let Some((open, close)) = braces else { return vec![pattern.to_owned()] };
    let (before, after) = (&pattern[..open], &pattern[close + 1..]);
    pattern[open + 1..close].split(',').flat_map(|choice| alternatives(&format!("{before}{choice}{after}"))).collect()
}

fn folders_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**"], [_, ..]) => path.iter().all(|name| !name.starts_with('.')),
        (["**", rest @ ..], _) => (0..path.len()).any(|skipped| {
            path[..skipped].iter().all(|folder| !folder.starts_with('.')) && folders_match(rest, &path[skipped..])
        }),
        ([first, pattern @ ..], [name, path @ ..]) => {
            // A hidden file is only meant where it is named
            let is_meant = !name.starts_with('.') || first.starts_with('.');
            let (first, name): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
            is_meant && name_matches(&first, &name) && folders_match(pattern, path)
        }
        _ => false,
    }
}

fn name_matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|skipped| name_matches(rest, &name[skipped..])),
        (['?', pattern @ ..], [_, name @ ..]) => name_matches(pattern, name),
        (['[', rest @ ..], [character, name @ ..]) if rest.iter().skip(1).any(|c| *c == ']') => {
            // A `]` that comes first stands for itself
            let close = 1 + rest.iter().skip(1).position(|c| *c == ']').unwrap_or(0);
            in_class(&rest[..close], *character) && name_matches(&rest[close + 1..], name)
        }
        ([expected, pattern @ ..], [character, name @ ..]) => expected == character && name_matches(pattern, name),
        _ => false,
    }
}

fn in_class(class: &[char], character: char) -> bool {
    let (is_negated, mut class) = match class {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut is_in = false;
    while let [first, rest @ ..] = class {
        if let ['-', last, rest @ ..] = rest {
            is_in |= (*first..=*last).contains(&character);
            class = rest;
        } else {
            is_in |= *first == character;
            class = rest;
        }
    }
    is_in != is_negated
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_of_real_cards() {
        let yes = [
            ("data/train-*", "data/train-00000-of-00001.parquet"),
            ("train.jsonl", "train.jsonl"),
            ("**/*.jsonl", "a/b/c.jsonl"),
            ("**/*.jsonl", "c.jsonl"),
            ("**", "a/b.csv"),
            ("harmless-base/**", "harmless-base/x/y.gz"),
            ("part[0-9]/?.json", "part3/x.json"),
            ("[!a]*.{json,csv}", "b.csv"),
            ("./data/*", "data/x"),
            ("*-[0-9][0-9].csv", "x-12.csv"),
        ];
        for (pattern, path) in yes {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        let no = [
            ("*.jsonl", "a/b.jsonl"),
            ("data/train-*", "data/test-0.parquet"),
            ("**/*.jsonl", "a/.hidden.jsonl"),
            ("**", ".git/config"),
            ("[!a]*", "abc"),
            ("part[0-9]/?.json", "part3/xy.json"),
            ("data", "data/x"),
        ];
        for (pattern, path) in no {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }
}
