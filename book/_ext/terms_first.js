// Scores of the search: as Sphinx has them, but a term of the glossary comes first, under its own name.
var Scorer = {
  score: result => {
    const anchor = String(result[2] || "");
    if (!anchor.startsWith("#term-")) return result[4];
    result[1] = `Glossary: ${anchor.slice(6).replaceAll("-", " ")}`;
    return result[4] + 100;
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
