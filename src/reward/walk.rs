//! How short a walk on a graph is: a reward whose optimum is known from every start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Check, Reward, Sample, answer};
use crate::{Error, Result};

/// A directed graph with a goal; each node is one character
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    goal: char,
    /// Nodes of a walk, its start included: one that long is worth nothing any more
    max_length: usize,
    /// The nodes that may follow a node
    edges: BTreeMap<char, BTreeSet<char>>,
}

/// Optimality of the walk that prompt and completion make up
#[derive(Debug)]
struct ShortestPath {
    file: String,
    graph: Graph,
    /// Nodes of the shortest walk from each node to the goal, both ends counted
    shortest: BTreeMap<char, usize>,
}

pub(super) fn shortest_path(file: &str) -> Result<Box<dyn Reward>> {
    let json = std::fs::read(file).map_err(|cause| Error::read(file, cause))?;
    Ok(Box::new(ShortestPath::new(file, &json).map_err(|error| error.context(format!("`{file}`")))?))
}

impl ShortestPath {
    fn new(file: &str, json: &[u8]) -> Result<Self> {
        let graph: Graph = serde_json::from_slice(json).map_err(|cause| {
            Error::usage(format!("not a graph: {cause}"))
                .hint(r#"expected {"goal": "a", "max_length": 10, "edges": {"b": ["a", "c"], "c": ["b"]}}"#)
        })?;
        let shortest = graph.shortest();
        for node in graph.edges.iter().flat_map(|(node, after)| after.iter().chain([node])) {
            match shortest.get(node) {
                None => {
                    return Err(Error::usage(format!("no walk leads from node `{node}` to the goal `{}`", graph.goal)));
                }
                Some(length) if *length >= graph.max_length => {
                    return Err(Error::usage(format!(
                        "the shortest walk from node `{node}` to the goal `{}` has {length} nodes, expected fewer than \
                         `max_length`, {}",
                        graph.goal, graph.max_length
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(Self { file: file.to_owned(), graph, shortest })
    }

    /// The nodes of a prompt; an error says what is wrong with it
    fn start(&self, prompt: &Value) -> Result<Vec<char>> {
        let Value::String(text) = prompt else {
            return Err(Error::usage("reward `shortest_path` needs prompts that are texts, not messages"));
        };
        let nodes: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        match nodes.iter().find(|node| !self.shortest.contains_key(node)) {
            _ if nodes.is_empty() => {
                Err(Error::usage("reward `shortest_path`: the prompt names no node to start from"))
            }
            Some(node) => {
                let known: String = self.shortest.keys().collect();
                Err(Error::usage(format!(
                    "reward `shortest_path`: no node `{node}` in `{}`, prompt `{text}`",
                    self.file
                ))
                .hint(format!("a prompt is one or several of the characters `{known}`")))
            }
            None => Ok(nodes),
        }
    }

    /// (max_length − nodes of the walk) / (max_length − nodes of the shortest one); 0 where an edge is missing, or the
    /// goal is not reached in fewer than `max_length` nodes. What follows the goal does not count.
    fn optimality(&self, walk: &[char]) -> f64 {
        let Graph { goal, max_length, edges } = &self.graph;
        let Some(last) = walk.iter().position(|node| node == goal) else { return 0.0 };
        let joined = |pair: &[char]| edges.get(&pair[0]).is_some_and(|after| after.contains(&pair[1]));
        if !walk[..=last].windows(2).all(joined) {
            return 0.0;
        }
        let spare = max_length.saturating_sub(last + 1);
        spare as f64 / (max_length - self.shortest[&walk[0]]) as f64
    }
}

impl Graph {
    /// Breadth first, from the goal against the edges
    fn shortest(&self) -> BTreeMap<char, usize> {
        let mut shortest = BTreeMap::from([(self.goal, 1)]);
        let mut queue = VecDeque::from([self.goal]);
        while let Some(node) = queue.pop_front() {
            let length = shortest[&node] + 1;
            for (&before, _) in self.edges.iter().filter(|(_, after)| after.contains(&node)) {
                shortest.entry(before).or_insert_with(|| {
                    queue.push_back(before);
                    length
                });
            }
        }
        shortest
    }
}

impl Reward for ShortestPath {
    fn name(&self) -> &'static str {
        "shortest_path"
    }

    fn check_row(&self, columns: &Map<String, Value>) -> Result<()> {
        columns.get("prompt").map_or(Ok(()), |prompt| self.start(prompt).map(drop))
    }

    fn score(&mut self, samples: &[Sample<'_>], _check: Check<'_>) -> Result<Vec<Option<f64>>> {
        let judge = |sample: &Sample<'_>| {
            let mut walk = self.start(sample.prompt).map_err(|error| error.context(answer::describe(sample)))?;
            walk.extend(sample.completion_text().chars().filter(|c| !c.is_whitespace()));
            Ok(Some(self.optimality(&walk)))
        };
        samples.iter().map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reward(edges: &Value, max_length: usize) -> Result<ShortestPath> {
        ShortestPath::new(
            "graph.json",
            json!({"goal": "a", "max_length": max_length, "edges": edges}).to_string().as_bytes(),
        )
    }

    /// d → c → b → a, and c → a
    fn ladder() -> ShortestPath {
        reward(&json!({"b": ["a"], "c": ["b", "a"], "d": ["c"]}), 6).unwrap()
    }

    #[test]
    fn a_walk_is_worth_what_it_spares() {
        let reward = ladder();
        let of = |walk: &str| reward.optimality(&walk.chars().collect::<Vec<_>>());
        assert_eq!(of("dca"), 1.0);
        assert_eq!(of("dcba"), 2.0 / 3.0);
        assert_eq!(of("ba"), 1.0);
        assert_eq!(of("bac"), 1.0, "what follows the goal does not count");
        for invalid in ["da", "d", "dc", "dxa", "dccca", "b"] {
            assert_eq!(of(invalid), 0.0, "{invalid}");
        }
        let circle = super::tests::reward(&json!({"b": ["a", "c"], "c": ["b"]}), 6).unwrap();
        let of = |walk: &str| circle.optimality(&walk.chars().collect::<Vec<_>>());
        assert_eq!(of("bcba"), 0.5);
        assert_eq!(of("bcbcba"), 0.0, "as long as allowed");
        assert_eq!(of("bcbcbcba"), 0.0, "longer than allowed");
    }

    #[test]
    fn prompt_and_completion_make_up_the_walk() {
        let mut reward = ladder();
        let columns = Map::new();
        let mut score = |prompt: Value, completion: &str| {
            let completion = json!(completion);
            let (prompt, completion) = (&prompt, &completion);
            let sample = Sample { prompt, completion, completion_ids: &[], columns: &columns, truncated: false };
            reward.score(&[sample], &|| Ok(()))
        };
        assert_eq!(score(json!("d"), "ca").unwrap(), [Some(1.0)]);
        assert_eq!(score(json!("dc"), " b a").unwrap(), [Some(2.0 / 3.0)]);
        assert_eq!(score(json!("d"), "").unwrap(), [Some(0.0)]);
        let error = score(json!("z"), "a").unwrap_err();
        assert!(error.message().contains("no node `z` in `graph.json`, prompt `z`"), "{error}");
    }

    #[test]
    fn a_prompt_that_is_no_walk_is_found_before_the_run() {
        let reward = ladder();
        let check = |prompt: Value| reward.check_row(json!({ "prompt": prompt }).as_object().unwrap());
        check(json!("d")).unwrap();
        assert!(check(json!(" ")).unwrap_err().message().contains("names no node"));
        assert!(check(json!("dz")).unwrap_err().message().contains("no node `z`"));
        assert!(check(json!([{"role": "user", "content": "d"}])).unwrap_err().message().contains("not messages"));
    }

    #[test]
    fn a_graph_on_which_no_walk_could_be_judged_is_refused() {
        let message = |edges: Value, max_length| reward(&edges, max_length).unwrap_err().message().to_owned();
        assert!(message(json!({"bc": ["a"]}), 6).starts_with("not a graph: "));
        assert!(message(json!(["b"]), 6).starts_with("not a graph: "));
        assert_eq!(message(json!({"b": ["a", "c"]}), 6), "no walk leads from node `c` to the goal `a`");
        let far = message(json!({"b": ["a"], "c": ["b"]}), 3);
        assert!(
            far.starts_with("the shortest walk from node `c` to the goal `a` has 3 nodes, expected fewer"),
            "{far}"
        );
        assert!(ShortestPath::new("f", b"{}").unwrap_err().message().contains("missing field `goal`"));
    }
}
