//! The keys of supervised fine-tuning.

use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Loss of supervised fine-tuning
    pub enum SftLoss {
        /// Negative log-likelihood of the tokens
        Nll = "nll" | "chunked_nll",
    }
    refused { "dft" => "dynamic fine-tuning is not built yet" }
}

config_keys! {
    /// The keys of supervised fine-tuning
    pub struct SftKeys {
        "Supervised fine-tuning" {
            /// Column that holds the text of rows without prompt and completion
            dataset_text_field: String = "text".to_owned();
            /// Loss on the completion alone; where not set, for rows that have one
            completion_only_loss: Option<bool> = None;
            /// Loss on the assistant's turns alone, for conversations
            assistant_only_loss: bool = false;
            /// Loss
            loss_type: SftLoss = SftLoss::Nll;
            /// Token that ends a text or turn; the tokenizer's own where not set
            eos_token: Option<String> = None;
            /// Chat template: a Jinja file, or the folder or id of a tokenizer that has one
            chat_template_path: Option<String> = None;
            /// Shuffle the rows once before anything else
            shuffle_dataset: bool = false;
            /// Put several texts into one sequence (`true` is not built yet)
            packing: bool = false;
        }
    }
}

impl SftKeys {
    fn check(&self) -> Result<()> {
        if self.packing {
            return Err(Error::usage("`packing` cannot be `true` yet: each text is a sequence of its own")
                .hint("leave out `packing`"));
        }
        Ok(())
    }
}
