//! Which stored responses each update of a step is made of.

use std::collections::{BTreeSet, HashMap};

use super::Grl;

impl Grl {
    /// Positions of each pass of each update
    pub(super) fn passes(&self, fresh: usize) -> Vec<Vec<Vec<usize>>> {
        let stored = self.learnt.store.len();
        if stored == 0 {
            return Vec::new();
        }
        let count = if fresh == 0 { self.batch.min(stored) } else { fresh };
        let mut updates = Vec::with_capacity(self.keys.replay_ratio);
        for update in 0..self.keys.replay_ratio {
            let positions = if update == 0 && fresh > 0 {
                (stored - fresh..stored).collect()
            } else {
                let mut rng = self.rng(2 + update as u64);
                let mut drawn = self.learnt.store.draw(count, fresh, self.keys.replay_fresh, &mut rng);
                // Those of one prompt side by side: they share its part of the forward pass
                drawn.sort_unstable();
                drawn
            };
            let passes: Vec<Vec<usize>> = if self.keys.needs_groups() {
                self.pass_groups(&positions)
            } else {
                positions.chunks(self.batch).map(<[usize]>::to_vec).collect()
            };
            if !passes.is_empty() {
                updates.push(passes);
            }
        }
        updates
    }

    /// Whole groups of at least two, as many as there are positions allow
    fn pass_groups(&self, positions: &[usize]) -> Vec<Vec<usize>> {
        let group = |position: usize| self.learnt.store.get(position).map(|rollout| rollout.group);
        let wanted: BTreeSet<u32> = positions.iter().filter_map(|position| group(*position)).collect();
        let most = positions.len().div_ceil(self.online.num_generations);
        let mut members: HashMap<u32, Vec<usize>> = HashMap::new();
        for (position, rollout) in self.learnt.store.iter().enumerate() {
            members.entry(rollout.group).or_default().push(position);
        }
        // Spread over the drawn ones: the first of an ordered set would always be the oldest
        let stride = wanted.len().div_ceil(most.max(1)).max(1);
        let chosen = wanted.iter().step_by(stride).filter_map(|group| members.get(group)).filter(|all| all.len() > 1);
        let mut passes: Vec<Vec<usize>> = Vec::new();
        for group in chosen {
            match passes.last_mut() {
                Some(pass) if pass.len() + group.len() <= self.batch => pass.extend(group),
                _ => passes.push(group.clone()),
            }
        }
        passes
    }

    /// Pairs of one group among the positions of a pass
    pub(super) fn pairs(&self, positions: &[usize]) -> Vec<(usize, usize)> {
        let group = |i: usize| self.learnt.store.get(positions[i]).map(|rollout| rollout.group);
        let of = |i: usize| (i + 1..positions.len()).take_while(move |j| group(*j) == group(i)).map(move |j| (i, j));
        (0..positions.len()).flat_map(of).collect()
    }
}
