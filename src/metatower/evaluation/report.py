def write(folder, summary, about): pass
