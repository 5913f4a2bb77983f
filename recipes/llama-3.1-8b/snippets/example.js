// Put your own source files in place of this one: problems start from their lines, functions are explained.

/** Each stretch of equal values as [value, how many]. */
function runs(values) {
  const found = [];
  for (const value of values) {
    const last = found[found.length - 1];
    if (last && last[0] === value) last[1] += 1;
    else found.push([value, 1]);
  }
  return found;
}
