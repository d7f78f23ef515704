"""Writes data/reviews: lexicon, corpus, fine-tuning rows and preference pairs about everyday things.

    python3 scripts/data/reviews.py [--output_dir data/reviews] [--corpus_texts 1000]

Python's standard library only, and a fixed seed: the same bytes each time. What the files are for, and how the gold
score is defined, is told in data/README.md.
"""

import argparse
import json
import math
import random
from pathlib import Path

SEED = 20250914
CORPUS_TEXTS = {"train": 1000, "test": 200}
SFT_ROWS = {"train": 600, "test": 100}
PREFERENCE_ROWS = {"train": 1000, "test": 256}
# Bradley-Terry: P(a is chosen over b) = sigmoid((gold(a) - gold(b)) / TEMPERATURE)
TEMPERATURE = 0.2
# Nobody is asked about two reviews whose gold scores are nearer than this
LEAST_GAP = 0.3

# ---------------------------------------------------------------------------------------------------------------------
# The gold score
# ---------------------------------------------------------------------------------------------------------------------

POSITIVE = {
    1: "fine decent tidy handy nice tasty pleased gladly clever",
    2: "good pleasant fresh friendly comfortable reliable clean helpful clear sturdy smooth generous cosy cheerful happy"
    " enjoy enjoyed funny charming elegant recommend",
    3: "great lovely beautiful gripping delicious impressed loved delighted moving",
    4: "excellent wonderful superb perfect brilliant",
}
NEGATIVE = {
    1: "odd plain clumsy cramped slow faded",
    2: "bad dull bland dirty flimsy weak stale noisy boring rude messy careless uncomfortable unreliable muddled greasy"
    " gloomy stingy annoyed annoying tedious",
    3: "poor ugly useless broken regret disappointed disappointing hated tasteless",
    4: "terrible awful dreadful horrible",
}
LEXICON = {
    "about": "Weights of sentiment words; the gold score is defined in data/README.md",
    # Among this many words after a negator, sentiment words count with the opposite sign
    "window": 3,
    # Added to the sum of absolute weights, so that one word alone does not reach the end of the scale
    "offset": 4,
    "negators": ["not", "never", "no", "nothing", "hardly", "isn't", "wasn't", "aren't", "weren't", "don't", "didn't"],
    # Words that end a negation, as punctuation does
    "breaks": ["but", "although", "though"],
    "weights": {
        word: sign * weight
        for sign, words in ((1, POSITIVE), (-1, NEGATIVE))
        for weight, group in words.items()
        for word in group.split()
    },
}


def gold(text, lexicon=LEXICON):
    """Sentiment of a text in (-1, 1); 0 where no word of the lexicon occurs."""
    negated_for = 0  # words for which a negation still holds
    found = set()
    for token in tokens(text):
        if token in PUNCTUATION or token in lexicon["breaks"]:
            negated_for = 0
            continue
        if token in lexicon["weights"]:
            found.add((token, negated_for > 0))
        negated_for = lexicon["window"] if token in lexicon["negators"] else max(0, negated_for - 1)
    signed = sum(-lexicon["weights"][word] if negated else lexicon["weights"][word] for word, negated in found)
    absolute = sum(abs(lexicon["weights"][word]) for word, _ in found)
    return signed / (lexicon["offset"] + absolute)


PUNCTUATION = ".,;:!?"


def tokens(text):
    """Lower-case words (ASCII letters and apostrophes) and punctuation marks; everything else only separates."""
    word = ""
    for character in text.replace("\u2019", "'") + " ":
        if character.isascii() and (character.isalpha() or character == "'"):
            word += character.lower()
            continue
        if word:
            yield word
        word = ""
        if character in PUNCTUATION:
            yield character


# ---------------------------------------------------------------------------------------------------------------------
# What is reviewed
# ---------------------------------------------------------------------------------------------------------------------

# Aspects: noun, whether plural, fitting praise, fitting blame
STAFF = ("staff", False, "friendly helpful pleasant excellent cheerful", "rude careless awful slow bad")
KINDS = {
    "place": {
        "things": "café bakery library museum hotel cinema pub campsite bookshop market garden restaurant",
        "held_out": "inn gallery canteen theatre",
        "where": ["on Mill Lane", "near the station", "by the harbour", "in the old town", "behind the church"],
        "aspects": [
            STAFF,
            ("rooms", True, "clean cosy tidy lovely comfortable", "dirty cramped gloomy messy dreadful"),
            ("seats", True, "comfortable clean decent", "uncomfortable broken cramped dirty"),
            ("entrance", False, "clean tidy beautiful charming", "dirty ugly gloomy messy"),
            ("music", False, "pleasant cheerful great good", "noisy terrible dull annoying boring"),
            ("view", False, "lovely wonderful superb beautiful", "ugly gloomy disappointing plain"),
        ],
        "openings": [
            "We went there on {day}.", "I stopped by after work.", "My {person} took me there on {day}.",
            "I have been there {number} times.", "We spent {number} hours there.", "I walked in on {day} with my {person}.",
        ],
        "facts": [
            "It opens at {number} in the morning.", "It has {number} tables and a red door.", "It is closed on {day}.",
            "The bus stops in front of it.", "There is a {colour} clock on the wall.", "You have to pay at the door.",
        ],
        "verdicts": ["I would gladly go again.", "I regret going there.", "It is a {praise} place.", "It is a {blame} place."],
    },
    "device": {
        "things": "kettle toaster lamp radio printer blender heater camera keyboard clock oven fan",
        "held_out": "fridge scanner drill iron",
        "where": ["from the sale", "with the long cable", "from the catalogue", "for the kitchen", "for the office"],
        "aspects": [
            ("handle", False, "sturdy comfortable smooth good", "flimsy broken uncomfortable clumsy"),
            ("lid", False, "sturdy smooth decent clever", "flimsy broken clumsy weak"),
            ("buttons", True, "clear smooth handy reliable", "unreliable broken flimsy odd"),
            ("manual", False, "clear helpful excellent funny", "muddled useless tedious poor"),
            ("motor", False, "reliable smooth great superb", "noisy weak unreliable awful"),
            ("design", False, "elegant clever beautiful lovely", "ugly clumsy boring terrible"),
        ],
        "openings": [
            "I bought it in {month}.", "My {person} gave it to me in {month}.", "We have used it for {number} weeks.",
            "It replaced the one we had before.", "It arrived on {day}.", "I ordered it for my {person}.",
        ],
        "facts": [
            "It is {colour}.", "It weighs {number} kilos.", "It came in a {colour} box.", "It cost {number} pounds.",
            "It stands on the shelf.", "The cable is {number} feet long.",
        ],
        "verdicts": ["I would gladly buy it again.", "I regret buying it.", "It is a {praise} machine.", "It is a {blame} machine."],
    },
    "work": {
        "things": "novel film play album podcast story poem opera comedy diary series essay",
        "held_out": "musical memoir ballad sequel",
        "where": ["about the sea", "about two sisters", "about a long winter", "about a lost dog", "about the war"],
        "aspects": [
            ("plot", False, "gripping clever great clear", "muddled dull boring tedious"),
            ("ending", False, "moving perfect wonderful clever", "disappointing bad odd terrible"),
            ("jokes", True, "funny clever charming brilliant", "stale tasteless bad awful"),
            ("beginning", False, "gripping funny lovely excellent", "slow dull tedious poor"),
            ("voices", True, "beautiful clear charming superb", "weak dull noisy dreadful"),
            ("language", False, "beautiful elegant clear moving", "clumsy plain bland muddled"),
        ],
        "openings": [
            "I finished it on {day}.", "My {person} told me about it.", "I took it on a journey in {month}.",
            "It has {number} parts.", "I came to it by chance.", "We talked about it on {day}.",
        ],
        "facts": [
            "It is set in {month}.", "It begins on a {colour} boat.", "The hero is a teacher.", "It lasts {number} hours.",
            "There are {number} sisters in it.", "It was made in the north.",
        ],
        "verdicts": ["I loved every minute.", "I hated every minute.", "It is a {praise} piece of work.", "It is a {blame} piece of work."],
    },
    "journey": {
        "things": "train ferry bus tram taxi flight cruise tour coach boat ride walk",
        "held_out": "metro gondola sleigh barge",
        "where": ["to the coast", "to the island", "to the capital", "along the river", "along the coast"],
        "aspects": [
            ("crew", False, "friendly helpful cheerful excellent", "rude careless dreadful slow"),
            ("seats", True, "comfortable clean good generous", "uncomfortable cramped broken dirty"),
            ("windows", True, "clean clear decent", "dirty broken faded"),
            ("air", False, "fresh pleasant good", "stale bad horrible"),
            ("guide", False, "funny helpful charming brilliant", "boring rude tedious muddled"),
            ("timetable", False, "clear reliable handy good", "unreliable muddled useless odd"),
        ],
        "openings": [
            "We left at {number} in the morning.", "I took it on {day} with my {person}.", "It took {number} hours.",
            "My {person} booked it in {month}.", "I take it every {day}.", "We waited for it in the rain.",
        ],
        "facts": [
            "It stops {number} times.", "It is painted {colour}.", "A ticket costs {number} pounds.", "It runs every {day}.",
            "Our bags were under the seats.", "It passes a {colour} bridge.",
        ],
        "verdicts": ["I would gladly take it again.", "I regret taking it.", "It was a {praise} way to travel.", "It was a {blame} way to travel."],
    },
    "food": {
        "things": "soup sandwich pie curry pizza stew salad pasta burger casserole omelette lunch",
        "held_out": "dinner risotto goulash paella",
        "where": ["with mushrooms", "from the market", "with herbs", "without meat", "for two"],
        "aspects": [
            ("taste", False, "delicious superb great good", "bland horrible awful bad"),
            ("bread", False, "fresh tasty perfect nice", "stale greasy dreadful poor"),
            ("sauce", False, "tasty delicious excellent smooth", "greasy bland terrible tasteless"),
            ("smell", False, "pleasant lovely wonderful fresh", "horrible stale odd bad"),
            ("portions", True, "generous decent perfect", "stingy poor disappointing"),
            ("vegetables", True, "fresh tasty nice lovely", "stale tasteless plain greasy"),
        ],
        "openings": [
            "I had it for lunch on {day}.", "We ordered it for {number} people.", "My {person} made it in {month}.",
            "It was on the menu on {day}.", "I ate it with my {person}.", "They serve it after {number} in the evening.",
        ],
        "facts": [
            "It comes on a {colour} plate.", "It costs {number} pounds.", "It takes {number} minutes.", "There is a lemon on top.",
            "You can have it with rice.", "The recipe is from {month}.",
        ],
        "verdicts": ["I would gladly eat it again.", "I regret eating it.", "It is a {praise} meal.", "It is a {blame} meal."],
    },
}
GENERAL_PRAISE = "good great lovely excellent wonderful nice decent pleasant perfect brilliant superb fine".split()
GENERAL_BLAME = "bad poor terrible awful disappointing dreadful horrible dull".split()
SLOTS = {
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "month": "January March April May June August October December".split(),
    "person": "sister brother mother father neighbour colleague uncle friend".split(),
    "number": "two three four five six seven eight nine ten twelve".split(),
    "colour": "blue green red grey white black brown yellow".split(),
}
TIMES = ["On {day}", "In the evening", "In the morning", "This time", "At first", "In the end", "After {number} days"]
VERDICTS = {
    True: ["I would recommend it to my {person}.", "I was {feeling}.", "My {person} was {feeling}.", "I enjoyed it."],
    False: ["I would not recommend it.", "I was {feeling}.", "My {person} was {feeling}.", "I did not enjoy it."],
}
FEELINGS = {True: "pleased happy impressed delighted".split(), False: "annoyed disappointed".split()}


class Writer:
    """Draws texts. Only `random()` of Python's generator is used, whose stream is the same in every version."""

    def __init__(self, name):
        self.source = random.Random(f"{SEED}/{name}")

    def chance(self, probability):
        return self.source.random() < probability

    def one(self, items):
        return items[int(self.source.random() * len(items))]

    def several(self, items, count):
        """Different ones, in drawn order."""
        left = list(items)
        return [left.pop(int(self.source.random() * len(left))) for _ in range(min(count, len(left)))]

    def fill(self, text, **fixed):
        while "{" in text:
            start, end = text.index("{"), text.index("}")
            slot = text[start + 1 : end]
            text = text[:start] + (fixed[slot] if slot in fixed else self.one(SLOTS[slot])) + text[end + 1 :]
        for vowel in "aeiou":  # "a excellent" → "an excellent"
            text = text.replace(f" a {vowel}", f" an {vowel}")
        return text

    # -- sentences ----------------------------------------------------------------------------------------------------

    def clause(self, aspect, positive, verb=None):
        """`the staff is friendly`, or with a negation `the staff is not rude`."""
        noun, plural, praise, blame = aspect
        verb = verb or self.one(["are", "were"] if plural else ["is", "was"])
        right, wrong = (praise, blame) if positive else (blame, praise)
        # A plain opposite under a negation; a strong word ("not superb") would not mean its contrary
        mild = [word for word in wrong.split() if abs(LEXICON["weights"][word]) <= 2]
        if mild and self.chance(0.18):
            word = self.one(mild)
            return f"the {noun} " + self.one(
                [f"{verb} not {word}", f"{verb} not very {word}", f"{verb} hardly {word}", f"{verb}n't {word}"]
                + ([f"{verb} never {word}"] if positive else [f"{verb} not {word} at all"])
            )
        words = right.split()
        if self.chance(0.15):
            return f"the {noun} {verb} {' and '.join(self.several(words, 2))}"
        word = self.one(words)
        degree = self.one(["", "", "", "", "", "very ", "rather ", "really ", "so "])
        # Nothing is "very superb" or "rather broken"
        return f"the {noun} {verb} {degree if abs(LEXICON['weights'][word]) <= 2 else ''}{word}"

    def aspect_sentence(self, aspects, lean):
        """Consumes one aspect or two; `lean` is the probability of praise."""
        first, positive = aspects.pop(), self.chance(lean)
        roll = self.source.random()
        if roll < 0.2 and aspects:
            second = aspects.pop()
            # The side that the writer is on has the last word
            left, right = self.clause(first, not positive), self.clause(second, positive)
            text = self.one([f"{left}, but {right}", f"although {left}, {right}", f"{left}, but I must say that {right}"])
        elif roll < 0.38 and aspects:
            second = self.clause(aspects.pop(), positive)
            negated = any(token in LEXICON["negators"] for token in tokens(second))
            text = f"{self.clause(first, positive)}, and {second}" + ("" if negated else " too")
        elif roll < 0.5:
            noun, _, praise, blame = first
            text = f"I found the {noun} {self.one((praise if positive else blame).split())}"
        elif roll < 0.62:
            verb = "were" if first[1] else "was"
            text = f"my {{person}} said that {self.clause(first, positive, verb)}"
        elif roll < 0.75:
            text = f"{self.one(TIMES)}, {self.clause(first, positive, 'were' if first[1] else 'was')}"
        else:
            text = self.clause(first, positive)
        text = self.fill(text)
        return text[0].upper() + text[1:] + "."

    def verdict(self, kind, lean):
        positive = self.chance(lean)
        praise, blame, one, other = KINDS[kind]["verdicts"]
        own = [one if "{praise}" in one else praise, praise] if positive else [other, blame]
        text = self.one(own + VERDICTS[positive])
        adjectives = GENERAL_PRAISE if positive else GENERAL_BLAME
        text = self.fill(
            text, feeling=self.one(FEELINGS[positive]), praise=self.one(adjectives), blame=self.one(adjectives)
        )
        return self.one(["", "", "", "All in all, ", "To sum up, "]) + text if text.startswith("I ") else text

    def review(self, kind, lean):
        """Two to five sentences about one thing, which is `it` throughout."""
        details = KINDS[kind]
        aspects = self.several(details["aspects"], len(details["aspects"]))
        sentences = [self.fill(self.one(details["openings"]))] if self.chance(0.6) else []
        for _ in range(self.one([1, 2, 2, 3])):
            if len(aspects) > 1:
                sentences.append(self.aspect_sentence(aspects, lean))
            if self.chance(0.25):
                sentences.append(self.fill(self.one(details["facts"])))
        if self.chance(0.5):
            sentences.append(self.verdict(kind, lean))
        unique = list(dict.fromkeys(sentences))
        return " ".join(unique)

    def leaning(self):
        """How probable praise is in each sentence of a text: most writers have made up their mind."""
        return self.one([0.03, 0.03, 0.03, 0.5, 0.97, 0.97, 0.97])

    # -- rows ---------------------------------------------------------------------------------------------------------

    def thing(self, held_out):
        kind = self.one(list(KINDS))
        name = self.one(KINDS[kind]["held_out" if held_out else "things"].split())
        return kind, f"{name} {self.one(KINDS[kind]['where'])}" if self.chance(0.7) else name

    def prompt(self, held_out):
        kind, thing = self.thing(held_out)
        return kind, f"Review of the {thing}:"

    def corpus_text(self):
        """Other kinds of text than a review, over the same words: letters, diaries, talk, plain facts."""
        kind, thing = self.thing(held_out=self.chance(0.25))
        roll = self.source.random()
        if roll < 0.3:
            facts = [self.fill(fact) for fact in self.several(KINDS[kind]["facts"], 3)]
            return f"Notes on the {thing}. {' '.join(facts)}"
        body = self.review(kind, self.leaning())
        if roll < 0.5:
            return self.fill(f"Dear {{person}}, you asked about the {thing}. {body} See you on {{day}}.")
        if roll < 0.7:
            return self.fill(f"{{day}}, {{number}} o'clock. Today I write about the {thing}. {body}")
        if roll < 0.85:
            return self.fill(f"\"What about the {thing}?\" asked my {{person}}. \"{body}\"")
        return self.fill(f"The {thing} was in the news in {{month}}. {body}")


def unique_rows(count, draw, key, seen=()):
    """`count` rows no two of which are the same, and none of which is among `seen`."""
    rows, seen = [], set(seen)
    while len(rows) < count:
        row = draw()
        if key(row) not in seen:
            seen.add(key(row))
            rows.append(row)
    return rows


def corpora(count):
    """Held-out texts, and `count` texts to train on; fewer are the first of more."""
    test = unique_rows(CORPUS_TEXTS["test"], Writer("corpus.test").corpus_text, key=str)
    return {"corpus": unique_rows(count, Writer("corpus").corpus_text, key=str, seen=test), "corpus.test": test}


def sft_rows(split, count):
    writer = Writer(f"sft.{split}")

    def draw():
        kind, prompt = writer.prompt(held_out=split == "test")
        completion = " " + writer.review(kind, writer.leaning())
        return {"prompt": prompt, "completion": completion, "gold": gold(completion)}

    return unique_rows(count, draw, key=lambda row: (row["prompt"], row["completion"]))


def preference_rows(split, count):
    writer = Writer(f"preferences.{split}")

    def draw():
        kind, prompt = writer.prompt(held_out=split == "test")
        while True:
            pair = [" " + writer.review(kind, writer.leaning()) for _ in range(2)]
            scores = [gold(text) for text in pair]
            if abs(scores[0] - scores[1]) >= LEAST_GAP:
                break
        first_wins = writer.chance(1 / (1 + math.exp((scores[1] - scores[0]) / TEMPERATURE)))
        better, worse = (0, 1) if first_wins else (1, 0)
        return {
            "prompt": prompt,
            "chosen": pair[better],
            "rejected": pair[worse],
            "gold_chosen": scores[better],
            "gold_rejected": scores[worse],
        }

    return unique_rows(count, draw, key=lambda row: (row["prompt"], row["chosen"], row["rejected"]))


def check_grammar():
    """Words of the grammar and of the lexicon must agree, or the gold score would not measure what is written."""
    weights = LEXICON["weights"]
    for kind, details in KINDS.items():
        for noun, _, praise, blame in details["aspects"]:
            for words, sign in ((praise, 1), (blame, -1)):
                for word in words.split():
                    assert weights.get(word, 0) * sign > 0, f"{kind}: `{word}` of `{noun}` has the wrong weight"
        for neutral in details["openings"] + details["facts"] + details["where"]:
            assert gold(neutral) == 0, f"{kind}: `{neutral}` is not neutral"
    for words, sign in ((GENERAL_PRAISE, 1), (GENERAL_BLAME, -1), (FEELINGS[True], 1), (FEELINGS[False], -1)):
        assert all(weights[word] * sign > 0 for word in words)
    assert gold("It is not good.") == -gold("It is good.") == -2 / 6
    assert gold("Good, good, good!") == gold("good")
    assert gold("It is not here, but good.") == gold("good")


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "data" / "reviews"
    parser.add_argument("--output_dir", type=Path, default=default)
    parser.add_argument("--corpus_texts", type=int, default=CORPUS_TEXTS["train"])
    arguments = parser.parse_args()
    folder = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    check_grammar()
    with open(folder / "lexicon.json", "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(LEXICON, indent=2) + "\n")
    for name, texts in corpora(arguments.corpus_texts).items():
        write_lines(folder / f"{name}.jsonl", ({"text": text} for text in texts))
    for split, count in SFT_ROWS.items():
        write_lines(folder / f"sft.{split}.jsonl", sft_rows(split, count))
    for split, count in PREFERENCE_ROWS.items():
        write_lines(folder / f"preferences.{split}.jsonl", preference_rows(split, count))


if __name__ == "__main__":
    main()
