// How the search orders what it has found: headings first, and pages that mention everything last.
var Scorer = {
  score: ([page, , , , score, , kind]) => {
    if (/^(benchmarks\/|changelog|architecture|contributing|dialects|index)/.test(page)) return Math.min(score, 1);
    return kind === "title" ? score + 100 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
