"""tests/goldens/rewards: what TRL's own reward functions say.

    VENV/bin/python scripts/goldens/rewards.py      (needs trl and math-verify)

`trl.json` holds, for each function, completions, token ids and solutions with TRL's rewards. `beyond` are answers whose
equality ours sees and math-verify 0.9 does not, or the other way round, with math-verify's verdict: the documented difference.
"""
import json
import os
import random
from importlib.metadata import version

from trl.rewards import (accuracy_reward, get_cosine_scaled_reward, get_repetition_penalty_reward, get_soft_overlong_punishment,
                         reasoning_accuracy_reward, think_format_reward)

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, "..", "..", "tests", "goldens", "rewards", "trl.json"))

# (solution, what the completion says)
ANSWERS = [
    ("50%", r"\boxed{0.5}"), ("50%", r"\boxed{50}"), ("50", r"\boxed{50\%}"), ("50%", r"\boxed{50\%}"), ("50%", r"\boxed{5}"),
    (r"$\frac13$", r"\boxed{0.333333}"), (r"$\frac13$", r"\boxed{0.33333}"),
    (r"\frac{1}{3}", r"My answer is \boxed{\frac{1}{3}}"), (r"\frac{1}{3}", r"My answer is \boxed{\frac{1}{2}}"),
    ("x+1", r"\boxed{1+x}"), ("$x+1$", r"\boxed{1+x}"), ("$x+1$", r"\boxed{x-1}"), ("$(1,2)$", r"\boxed{(1, 2)}"), ("$(1,2)$", r"\boxed{(2,1)}"),
    (r"$\{1,2\}$", r"\boxed{2, 1}"), ("$1,2$", r"\boxed{2,1}"), ("$1,2$", r"\boxed{2,3}"), ("$[1,2)$", r"\boxed{[1,2)}"), ("$[1,2)$", r"\boxed{[1,2]}"),
    ("$x=5$", r"\boxed{5}"), ("$5$", r"\boxed{x=5}"), ("$x=5$", r"\boxed{x=6}"), ("1,234", r"\boxed{1234}"), ("$1234$", r"\boxed{1,234}"),
    ("1,234,567", r"\boxed{1234567}"), ("Paris", r"\boxed{Paris}"), (r"$\text{Paris}$", r"\boxed{\text{Paris}}"),
    (r"$\text{Paris}$", r"\boxed{\text{Rome}}"), (r"$\text{Paris}$", r"\boxed{paris}"), ("#### 72", r"\boxed{72}"),
    ("Half of 48 is 24.\n48 + 24 = 72\n#### 72", r"So it is \boxed{72}."), ("A 5 b\n#### 72", "The answer is $72$."),
    ("A 5 b\n#### 72", "The answer is $71$."), ("72", "The answer is 72"), ("72", "$72$"), ("72", "#### 72"), ("72", r"The final answer is $72$. I hope it is correct."),
    ("72", r"answer: \(72\)"), ("72", r"The answer, after all of this long and winding but not quite complete talk, is $72$."),
    (r"$3\frac{1}{2}$", r"\boxed{3.5}"), (r"$3\frac{1}{2}$", r"\boxed{\frac{7}{2}}"), ("$5$ cm", r"\boxed{5\text{ cm}}"), ("$5$", r"\boxed{5 \text{ cm}^2}"),
    ("5 dollars", r"\boxed{\$5}"), (r"$\sqrt{8}$", r"\boxed{2\sqrt{2}}"), (r"$\pi$", r"\boxed{3.14159}"), (r"$\pi$", r"\boxed{3.141593}"), (r"$2\pi$", r"\boxed{\pi \cdot 2}"),
    ("$2^{10}$", r"\boxed{1024}"), ("1/2", r"\boxed{\frac{1}{2}}"), ("1/2", r"\boxed{0.5}"), ("$x^2-1$", r"\boxed{(x-1)(x+1)}"),
    ("$x^2-1$", r"\boxed{(x-1)^2}"), (r"$90^\circ$", r"\boxed{90}"), ("$x>1$", r"\boxed{1<x}"), ("$x>1$", r"\boxed{x<1}"), (r"$x \geq 1$", r"\boxed{x \ge 1}"),
    (r"$x \geq 1$", r"\boxed{x > 1}"), ("$1 < x < 2$", r"\boxed{1<x<2}"), ("$1 < x < 2$", r"\boxed{0<x<2}"), ("$x = 2 + 3 = 5$", r"\boxed{x=5}"),
    ("$y-2x=1$", r"\boxed{y=2x+1}"), ("$2$ or $3$", r"\boxed{3, 2}"), ("$2$, $3$", r"The answer is $2$ and $3$."), ("$2 < 3$", r"\boxed{3 > 2}"), ("$x \\neq 1$", r"\boxed{x \neq 1}"), (r"$\infty$", r"\boxed{\infty}"), (r"$(-\infty, 3]$", r"\boxed{(-\infty,3]}"), ("$(B)$", r"\boxed{B}"), ("$B$", r"\boxed{C}"),
    ("-3", r"\boxed{-3}"), ("-3", r"\boxed{3}"), ("$10^{-3}$", r"\boxed{0.001}"), ("$5!$", r"\boxed{120}"),
    (r"$\log_2 8$", r"\boxed{3}"), (r"$\log_{2}{8}$", r"\boxed{3}"), (r"$\sin(\pi/2)$", r"\boxed{1}"), (r"$\ln e$", r"\boxed{1}"), (r"$\sqrt[3]{8}$", r"\boxed{2}"), ("two", r"\boxed{2}"),
    (r"\boxed{4}", r"answer: \(4\)"), ("$y=2x+1$", r"\boxed{2x+1}"), ("$y=2x+1$", r"\boxed{y=1+2x}"), ("$y=2x+1$", r"\boxed{y=2x}"), ("$1.5$", r"\boxed{\dfrac{3}{2}}"),
    (r"$\frac{x}{2}$", r"\boxed{0.5x}"), ("$2$ and $3$", r"\boxed{2,3}"), ("$7$", r"\boxed{}"), ("$7$", r"\boxed{7"), ("", r"\boxed{7}"), ("no numbers", r"\boxed{7}"),
    ("$a$", r"\boxed{a}"), ("$a$", r"\boxed{A}"), ("$a$", r"\boxed{b}"), ("$7$", "7"), ("$7$", ""), ("$7$", r"\boxed{\frac{14}{2}}"), ("$7$", r"\boxed{07}"), ("$7$", r"\boxed{7.0}"),
    ("$0$", r"\boxed{-0}"), ("$12345678901234567890$", r"\boxed{12345678901234567891}"), ("$a_1$", r"\boxed{a_1}"), ("$a_1$", r"\boxed{a_2}"), (r"$|x|$", r"\boxed{|x|}"),
    (r"$\alpha+\beta$", r"\boxed{\beta+\alpha}"), ("$2x=4$", r"\boxed{x=2}"), (r"$x \in [0,1]$", r"\boxed{[0,1]}"), (r"$\frac{\sqrt{3}}{2}$", r"\boxed{\frac{3}{2\sqrt{3}}}"),
    ("$0.5$", r"\boxed{.5}"), ("$-\\frac{1}{2}$", r"\boxed{\frac{-1}{2}}"), ("$5 \\times 10^{3}$", r"\boxed{5000}"), (r"The answer is $3 + 4 = 7$", r"\boxed{7}"),
    ("$n(n+1)/2$", r"\boxed{\frac{n^2+n}{2}}"), (r"$\cos^2 x + \sin^2 x$", r"\boxed{1}"), ("$e^{x}$", r"\boxed{\exp(x)}"), ("$(3, \\frac{\\pi}{2})$", r"\boxed{\left(3,\frac{\pi}{2}\right)}"),
    ("$7$", r"I think \boxed{6}. The answer is $7$."), ("18", r"\[ \boxed{18} \]"), ("18", r"$\boxed{18}$"), ("18", r"$x = \boxed{18}$"), ("$2x$", r"\boxed{x2}"), ("$1{,}000$", r"\boxed{1000}"),
]

# Answers on which ours knowingly differs
BEYOND = [(r"$\frac{1}{3}$", r"\boxed{\frac13}"), (r"$\sqrt{8}$", r"\boxed{2\sqrt2}"), ("$3$", r"\boxed{4} \boxed{3}"),
          (r"$\begin{pmatrix}1\\2\end{pmatrix}$", r"\boxed{\begin{pmatrix}1.0\\2\end{pmatrix}}")]


def messages(texts):
    return [[dict(role="assistant", content=text)] for text in texts]


def main():
    rng = random.Random(3)
    solutions, texts = [list(column) for column in zip(*ANSWERS)]
    ids = [[rng.randrange(5) for _ in range(rng.choice([1, 2, 3, 10, 40, 100, 150]))] for _ in texts]
    reasoned = [rng.choice(["<think>hm \\boxed{1}</think>", "<think>a</think>b</think> ", "<think>", "", "</think>"]) + text for text in texts]
    formats = ["<think>\na\n</think>\nb", "<think>\na\nb", "x<think>a</think>b", "<think><think>a</think>b", "<think>a</think>b<think>c</think>", "<think></think>",
               "<think>a</think>b</think>", "\n<think>a</think>b", "</think>", "", "<think>a\nb<think>", "<Think>a</Think>"]
    lengths = [0, 1, 79, 80, 81, 90, 99, 100, 101, 1000]
    out = dict(
        versions={name: version(name) for name in ["trl", "math-verify", "latex2sympy2_extended", "sympy"]},
        accuracy=dict(solutions=solutions, completions=texts, rewards=accuracy_reward(messages(texts), solutions)),
        reasoning=dict(solutions=solutions, completions=reasoned, rewards=reasoning_accuracy_reward(messages(reasoned), solutions)),
        cosine=dict(max=100, solutions=solutions, completions=texts, completion_ids=ids,
                    rewards=get_cosine_scaled_reward(100)(messages(texts), solutions, ids)),
        think=dict(completions=formats, rewards=think_format_reward(messages(formats))),
        overlong=dict(lengths=lengths, max=100, cache=20, rewards=get_soft_overlong_punishment(100, 20)([[1] * n for n in lengths]),
                      default_lengths=[1024, 1025, 1152, 1280, 1281],
                      default_rewards=get_soft_overlong_punishment(1280, 256)([[1] * n for n in [1024, 1025, 1152, 1280, 1281]])),
        repetition=dict(completion_ids=ids, default=get_repetition_penalty_reward()(ids), size=2, penalty=-0.5,
                        rewards=get_repetition_penalty_reward(2, -0.5)(ids)),
        beyond=dict(solutions=[s for s, _ in BEYOND], completions=[c for _, c in BEYOND],
                    rewards=accuracy_reward(messages([c for _, c in BEYOND]), [s for s, _ in BEYOND])),
    )
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in out.items()) + "\n}\n")


main()
