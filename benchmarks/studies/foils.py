"""Captions of photographs with one word changed, made by rule: does a model notice?

A word is changed for another of its kind and form ("two" for "three", "runs" for "sits"). The new word must be false as far as
people have told: no caption of the photograph says it, in any form, nor one of the words that come close to it. What nobody
mentions may still be in the photograph, so that a few changed captions are true, and no model can be right on all. "One" is
never put in or taken out: beside "one dogs" and "two dog" grammar alone would speak for the true caption.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from crossexplain.data.examples import Examples
from crossexplain.data.flickr8k import Flickr8k
from crossexplain.models.two_towers import JoinedTowers
from crossexplain.recipes import flickr8k as recipe
from crossexplain.recipes.encodings import Encoded, encode_captions

# Of each kind some groups, one a paragraph, whose words exclude each other. A line is one word in the forms in which it is
# changed, each for the same form of another line; what stands after the bar comes close to it, and rules it out, too.
WORDS = {
    "person": """
        man men | guy guys male gentleman someone
        woman women | lady ladies female mother
        boy boys | son brother
        girl girls | daughter sister
    """,
    "animal": """
        dog dogs | puppy puppies poodle greyhound greyhounds dalmatian terrier retriever animal animals
        horse horses | pony ponies rider animal animals
        bird birds | duck ducks seagull seagulls geese animal animals
        cat cats | kitten animal animals
        cow cows | bull bulls cattle animal animals
    """,
    "thing": """
        ball | balls football basketball soccer baseball tennis volleyball golf
        stick | sticks branch branches pole log
        frisbee | frisbees disc disk
        rope | leash string
        umbrella | umbrellas parasol

        bike bikes | bicycle bicycles biker bikers cyclist cyclists biking bmx bicyclist bicycling bicyclists ride wheel
        car cars | vehicle truck van racecar racing jeep cab taxi
        boat boats | canoe kayak raft ship kayaker kayakers sailboat canoes canoeing kayaking rafting
        skateboard skateboards | skateboarder skateboarders skateboarding skater skaters board skating
        motorcycle motorcycles | motorbike motocross biker dirtbike motorcyclist bike bikes rider
        surfboard surfboards | surfer surfers surfing surf surfs board wave waves

        hat hats | cap caps helmet helmets beanie headgear bandana visor hood
        jacket jackets | coat coats vest sweater hoodie sweatshirt
        dress dresses | gown skirt costume
        shirt shirts | t-shirt tshirt top jersey shirtless blouse tank
        scarf scarves | shawl
        helmet helmets | hat hats gear
    """,
    "place": """
        beach | sand sandy shore ocean sea coast water waves
        street | road city sidewalk pavement crosswalk traffic
        field | grass grassy meadow lawn pasture park yard
        snow | snowy snowboard snowboarder skier ski skis skiing sled winter ice snowboarding slope snowball
        forest | woods tree trees wooded jungle
        pool | pools swimming swimmer water
        desert | sand dunes sandy dune dry
        kitchen | cooking food

        ocean | sea beach wave waves surf surfer surfing shore water
        lake | pond water river
        river | stream creek lake water
        mountain | mountains hill cliff rock peak rocky hills mountainside
        building | buildings house city wall
    """,
    "colour": """
        red | pink orange maroon colorful multicolored burgundy striped
        blue | navy turquoise purple colorful multicolored striped teal
        green | grass grassy colorful multicolored striped camouflage lime
        yellow | golden gold blond blonde orange tan colorful multicolored striped
        black | dark striped spotted
        white | striped spotted light pale snow snowy
        brown | tan beige dark golden
        pink | red purple colorful multicolored
        purple | pink blue violet lavender colorful multicolored
        orange | red yellow tan golden colorful multicolored
        gray | grey silver
        grey | gray silver
    """,
    "count": """
        two | couple pair both another other
        three | trio
        four | several many
        five | several many group
        six | several many group
        seven | several many group
    """,
    "action": """
        run runs running | race races racing chase chases chasing ran sprints sprinting runner runners jogging marathon
        jump jumps jumping | leap leaps leaping air midair jumped hurdle bounces bouncing airborne hop flying dive dives diving
        sit sits sitting | seated rest resting rests sat relaxing
        stand stands standing | stood posing poses pose
        walk walks walking | strolling walked hiking hike hikes stroll hikers hiker wading
        swim swims swimming | swimmer water pool swimmers
        climb climbs climbing | climber climbers scaling scales rock
        sleep sleeps sleeping | asleep lying laying lies lays nap napping rest resting
        dance dances dancing | dancer dancers ballet
        eat eats eating | food bite snack lunch dinner meal chewing biting picnic
        dig digs digging | sand dirt

        catch catches catching | caught
        throw throws throwing | tosses tossing toss threw thrown pitcher
        kick kicks kicking | soccer karate
        push pushes pushing |
        hold holds holding | carry carries carrying held
    """,
    "position": """
        on | atop onto upon top above
        under | beneath below underneath
        behind | back background chases chasing follows following chased
        inside | indoors in room
        beside | next by near alongside side

        up | upward upwards climbing climbs climb ascending top uphill
        down | downward downwards descending downhill sliding slides slide

        above | over top
        below | beneath under underneath bottom

        over | above across
        under | beneath below underneath

        left |
        right |
    """,
    "size": """
        big | large huge giant
        small | little tiny young
        large | big huge giant
        little | small tiny young

        old | older elderly aged
        young | younger little child boy girl baby kid toddler children kids

        long |
        short |

        tall |
        short | small little
    """,
}
WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


@dataclass(frozen=True)
class Foils(Examples):
    """Captions with one word changed.

    Attributes
    ----------
    image, caption : ndarray of int64, shape (N,)
        As in :class:`crossexplain.data.flickr8k.Pairs`: the photograph, and the caption that is true of it.
    texts : list of N str
        The changed caption.
    kinds : list of N str
        One of the keys of ``WORDS``.
    changes : list of N str
        For example ``"two -> three"``.
    """

    image: np.ndarray
    caption: np.ndarray
    texts: list[str]
    kinds: list[str]
    changes: list[str]


@cache
def groups(kind: str) -> list[list[tuple[list[str], set[str]]]]:
    """Return the groups of a kind: of each word its forms, and all that rules it out."""
    paragraphs = [paragraph.strip().splitlines() for paragraph in WORDS[kind].split("\n\n")]
    parted = [[line.partition("|") for line in lines] for lines in paragraphs]
    return [[(forms.split(), {*forms.split(), *close.split()}) for forms, _, close in lines] for lines in parted]


def build(data: Flickr8k, split: str = "test", seed: int = 0) -> Foils:
    """Change one word of every caption of a split that has one: of the kind that came up least so far.

    Parameters
    ----------
    data : Flickr8k
    split : str
    seed : int
        Of the word that is changed, where there are several, and of the word in its place.

    Returns
    -------
    Foils
        The kinds are as balanced as the captions allow.
    """
    rng, rows, count = np.random.default_rng(seed), [], dict.fromkeys(WORDS, 0)
    for image in data.splits[split]:
        captions = data.captions_of([image])
        known = {word for i in captions for word in WORD.findall(data.captions[i].lower())}
        for i in captions:
            choices = {kind: found for kind in WORDS if (found := changes(data.captions[i], kind, known))}
            if choices:
                kind = min(choices, key=count.get)
                count[kind] += 1
                place, new = choices[kind][rng.integers(len(choices[kind]))]
                before, old, after = data.captions[i][: place.start], data.captions[i][place], data.captions[i][place.stop :]
                rows.append((image, i, before + new + after, kind, f"{old.lower()} -> {new.lower()}"))
    image, caption, *others = (list(column) for column in zip(*rows))
    return Foils(np.array(image), np.array(caption), *others)


def noticed(head: JoinedTowers, encoded: Encoded, foils: Foils) -> np.ndarray:
    """Return for each foil whether the true caption has the higher logit, bool (N,); as :func:`recipe.logits`."""
    changed = replace(encoded.flickr8k, captions=foils.texts)
    numbers = np.arange(len(foils.texts))
    states = encode_captions(encoded.encoder, encoded.tokenizer, changed, numbers, progress=False)
    on_foils = replace(encoded, flickr8k=changed, captions=numbers, states_of=states)
    seen = recipe.see(head, encoded, foils.image)
    with torch.no_grad():
        true, false = (head.match(seen, recipe.read(head, *of)) for of in ((encoded, foils.caption), (on_foils, numbers)))
    return (true > false).cpu().numpy()


def rarer(data: Flickr8k, foils: Foils) -> np.ndarray:
    """Return for each foil whether its new word is rarer in the captions to learn from than the old one, (N,); 0.5 if as rare.

    That is what somebody is right in who sees no photograph and of a caption only the word that may be changed.
    """
    told = data.captions_of(data.splits["train"])
    said = Counter(word for i in told for word in WORD.findall(data.captions[i].lower()))
    old, new = np.array([[said[word] for word in change.split(" -> ")] for change in foils.changes]).T
    return (old > new) + (old == new) / 2


def changes(caption: str, kind: str, known: set[str]) -> list[tuple[slice, str]]:
    """Return all ways to change a word of a kind for another of its group: where, and the new word.

    ``a`` and ``an`` stay right, and no new word is one that is ruled out by what is ``known`` of the photograph.
    """
    found = []
    for match in WORD.finditer(caption.lower()):
        old = match[0]
        for group in groups(kind):
            for form in {forms.index(old) for forms, _ in group if old in forms}:
                for forms, close in group:
                    if form < len(forms) and not close & known and _vowel(forms[form]) == _vowel(old):
                        new = forms[form]
                        found.append((slice(*match.span()), new.capitalize() if caption[match.start()].isupper() else new))
    return found


def _vowel(word: str) -> bool:
    return word[0] in "aeiou"
