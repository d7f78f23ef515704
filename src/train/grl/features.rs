//! Prompts as points: identity by tokens, features from the states of the frozen reference model.

use std::collections::HashMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use sha2::{Digest, Sha256};

use crate::files::hex;
use crate::grl::arrays::Owner;
use crate::grl::features::{FeatureMap, pool};
use crate::grl::kernel::Point;
use crate::grl::uncertainty::draw_by_weight;
use crate::model::gpt2::Gpt2;
use crate::ops::Ragged;
use crate::ops::kernels::noise::mix;
use crate::{Error, Result};

/// Prompts of one forward pass
const CHUNK: usize = 32;

/// A prompt's identity: its tokens'
pub fn key(ids: &[u32]) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let digest = Sha256::digest(&bytes);
    digest.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// A checksum of a model's weights, by which what belongs to it is known
pub fn fingerprint(model: &Gpt2) -> Result<String> {
    let mut hasher = Sha256::new();
    for (name, tensor) in model.weights() {
        hasher.update(name.as_bytes());
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        hasher.update(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
    Ok(hex(&hasher.finalize()))
}

/// The pooled state of each prompt, `width` numbers each
fn pooled(model: &Gpt2, prompts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
    let width = model.config().n_embd;
    let mut layout = Ragged::new();
    for ids in prompts {
        layout.push(ids.len(), None)?;
    }
    let (first, last) = model.first_and_last(&prompts.concat(), &Arc::new(layout))?;
    let (first, last) = (first.flatten_all()?.to_vec1::<f32>()?, last.flatten_all()?.to_vec1::<f32>()?);
    let mut at = 0;
    let of_prompt = prompts.iter().map(|ids| {
        let tokens = at..at + ids.len() * width;
        at = tokens.end;
        pool(&first[tokens.clone()], &last[tokens], width)
    });
    of_prompt.collect()
}

/// The frozen reference model, and what it says of prompts
pub struct Features {
    reference: Gpt2,
    /// None where prompts do not differ enough, or nobody asks for features
    map: Option<FeatureMap>,
    owner: Owner,
    /// Pooled states of the prompts that the map was fitted to: passes of other sizes might give other last bits
    states: HashMap<u64, Vec<f32>>,
    known: HashMap<u64, Vec<f32>>,
    donors: Option<Donors>,
}

/// Whose features each prompt has in place of its own
struct Donors {
    of: HashMap<u64, Vec<u32>>,
    /// For prompts that nobody dealt to
    others: Vec<Vec<u32>>,
}

impl Donors {
    fn donor(&self, key: u64) -> Option<&[u32]> {
        let other = self.others.get((key % self.others.len().max(1) as u64) as usize);
        self.of.get(&key).or(other).map(Vec::as_slice)
    }
}

impl Features {
    /// Fits `dim` features to prompts; 0 fits none
    pub fn fit<'a>(reference: Gpt2, prompts: impl Iterator<Item = &'a [u32]>, dim: usize, most: usize) -> Result<Self> {
        let owner = Owner { model: fingerprint(&reference)?, feature_map: String::new() };
        let (states, known) = (HashMap::new(), HashMap::new());
        let mut features = Self { reference, map: None, owner, states, known, donors: None };
        if dim == 0 {
            return Ok(features);
        }
        let mut chosen: Vec<(u64, &[u32])> = Vec::new();
        for ids in prompts {
            if chosen.len() == most {
                break;
            }
            let key = key(ids);
            if features.states.insert(key, Vec::new()).is_none() {
                chosen.push((key, ids));
            }
        }
        let mut flat = Vec::new();
        for chunk in chosen.chunks(CHUNK) {
            let ids: Vec<&[u32]> = chunk.iter().map(|(_, ids)| *ids).collect();
            for ((key, _), state) in chunk.iter().zip(pooled(&features.reference, &ids)?) {
                flat.extend_from_slice(&state);
                features.states.insert(*key, state);
            }
        }
        let map = fit_map(&flat, features.reference.config().n_embd, dim, chosen.len())?;
        features.set_map(map)?;
        Ok(features)
    }

    /// With a map that was fitted before
    pub fn with_map(reference: Gpt2, map: Option<FeatureMap>) -> Result<Self> {
        let owner = Owner { model: fingerprint(&reference)?, feature_map: String::new() };
        let (states, known) = (HashMap::new(), HashMap::new());
        let mut features = Self { reference, map: None, owner, states, known, donors: None };
        features.set_map(map)?;
        Ok(features)
    }

    /// Puts another map in the place of this one
    pub fn set_map(&mut self, map: Option<FeatureMap>) -> Result<()> {
        self.owner.feature_map = match &map {
            Some(map) => hex(&Sha256::digest(map.to_arrays(&self.map_owner()).to_bytes()?)),
            None => String::new(),
        };
        self.map = map;
        self.known.clear();
        Ok(())
    }

    /// Deals the features of different prompts out among them, always the same way for a seed. Prompts beside them get those
    /// of one of them
    pub fn permute<'a>(&mut self, prompts: impl Iterator<Item = &'a [u32]>, seed: u64) {
        let mut keys = Vec::new();
        let mut ids: HashMap<u64, &[u32]> = HashMap::new();
        for prompt in prompts {
            let key = key(prompt);
            if ids.insert(key, prompt).is_none() {
                keys.push(key);
            }
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(mix(seed ^ 0x6465_616c));
        let dealt = draw_by_weight(&vec![1.0; keys.len()], keys.len(), &mut rng);
        let others: Vec<Vec<u32>> = dealt.into_iter().map(|donor| ids[&keys[donor]].to_vec()).collect();
        let of = keys.into_iter().zip(others.iter().cloned()).collect();
        self.donors = Some(Donors { of, others });
        self.known.clear();
    }

    /// The reference model
    pub fn reference(&self) -> &Gpt2 {
        &self.reference
    }

    /// The map, where there is one
    pub fn map(&self) -> Option<&FeatureMap> {
        self.map.as_ref()
    }

    /// Model and map, which a memory belongs to
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The model, which a map belongs to
    pub fn map_owner(&self) -> Owner {
        Owner { model: self.owner.model.clone(), feature_map: String::new() }
    }

    /// Numbers of a feature vector
    pub fn dim(&self) -> usize {
        self.map.as_ref().map_or(0, FeatureMap::dim)
    }

    /// Computes a prompt's features where they are not known yet; gives its key
    pub fn learn(&mut self, ids: &[u32]) -> Result<u64> {
        let key = key(ids);
        if self.known.contains_key(&key) {
            return Ok(key);
        }
        let source = self.donors.as_ref().and_then(|donors| donors.donor(key)).unwrap_or(ids);
        let phi = match &self.map {
            None => Vec::new(),
            Some(map) => match self.states.get(&self::key(source)) {
                Some(state) => map.apply(state)?,
                // One at a time: the last bits must not depend on which prompts a step happens to bring together
                None => map.apply(&pooled(&self.reference, &[source])?.concat())?,
            },
        };
        self.known.insert(key, phi);
        Ok(key)
    }

    /// Forgets the features of prompts that [`Self::learn`] has seen
    pub fn forget(&mut self) {
        self.known.clear();
        self.states.clear();
    }

    /// The point of a prompt that [`Self::learn`] has seen
    pub fn point(&self, key: u64) -> Result<Point<'_>> {
        let phi = self.known.get(&key);
        phi.map(|phi| Point::new(key, phi)).ok_or_else(|| Error::run(format!("prompt {key:016x} has no features")))
    }
}

/// A map of as many features as prompts allow, at most `dim`
fn fit_map(states: &[f32], width: usize, dim: usize, prompts: usize) -> Result<Option<FeatureMap>> {
    let mut dim = dim.min(width).min(prompts.saturating_sub(1));
    let asked = dim;
    if let Some(at) = states.iter().position(|x| !x.is_finite()) {
        return Err(Error::run(format!("the reference model's state of prompt {} is not finite", at / width)));
    }
    while dim > 0 {
        match FeatureMap::fit(states, width, dim, true) {
            Ok(map) => {
                if dim < asked {
                    tracing::warn!("the prompts vary in few directions: {dim} features in place of {asked}");
                }
                return Ok(Some(map));
            }
            Err(_) => dim /= 2,
        }
    }
    tracing::warn!("{prompts} different prompts are too few or too alike for features: the kernel is `delta`");
    Ok(None)
}
