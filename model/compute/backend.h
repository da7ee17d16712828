// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BACKEND_H
#define SPLITLLM_BACKEND_H

#include "compute/weight-precision.h"
#include "compute/work.h"
#include "llm/adapter.h"
#include "llm/beam-search.h"
#include "llm/bottleneck.h"
#include "llm/config.h"
#include "llm/exits.h"
#include "llm/model.h"
#include "llm/sampling.h"
#include "llm/side-network.h"
#include "tensor/tensor.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace splitllm
{

/// Base projections of one layer, before rotary positions. w rows, one a token.
struct Projections
{
    Tensor input; //!< w x d: the normed hidden state that Q, K and V were computed from
    Tensor query; //!< w x q
    Tensor key;   //!< w x kv
    Tensor value; //!< w x kv
};

/// What the adapter adds to the projections.
struct Deltas
{
    Tensor query; //!< w x q
    Tensor key;   //!< w x kv
    Tensor value; //!< w x kv
};

/// The operations of a backend, by the names used in table timing, traces and timelines.
enum class Operation
{
    Embed,       //!< "embed"
    Project,     //!< "project": norm and Q, K, V projections
    Adapt,       //!< "adapt": LoRA's updates of Q, K, V
    Merge,       //!< "merge": projections += updates
    FinishLayer, //!< "finish-layer": positions, attention, output projection, MLP, residuals
    Prune,       //!< "prune": dropping the entries of a KV cache that attention cares least for
    Snapshot,    //!< "snapshot": copying entries out of a KV cache
    Restore,     //!< "restore": appending copied entries to a KV cache
    Head,        //!< "head": final norm and logits
    Sample,      //!< "sample": the next token from the logits
    Exit,        //!< "exit": an early exit's logits and confidence
    Attend,      //!< "attend": positions, attention, output projection; FinishLayer's part before the residual
    FeedForward, //!< "feed-forward": norm and MLP; FinishLayer's part before the last residual
    Bottleneck,  //!< "bottleneck": what a bottleneck adapter adds
    SideInput,   //!< "side-input": down-projections of the states behind all layers
    Side,        //!< "side": a side network's blocks and up-projection
    Combine,     //!< "combine": a state += what a side network or a bottleneck adapter makes of it
    Gate,        //!< "gate": whether the side network is asked
    Search,      //!< "search": beam search's most likely next tokens
    Fork,        //!< "fork": copying a KV cache for another hypothesis
    Calibrate,   //!< "calibrate": deciding whether an exchange is worth it
    Encode,      //!< "encode": a tensor into the bytes that travel
    Decode,      //!< "decode": the bytes into a tensor
};

std::string_view NameOf(Operation operation);

/// A result and what it cost.
template <typename T>
struct Computed
{
    T value;
    Operation operation;
    std::size_t rows;
    Work work;
    std::chrono::nanoseconds elapsed{0}; //!< what it took here, for measured timing alone
};

/// Weights that are resident in a backend. Opaque: only their backend looks inside.
class ResidentModel
{
  public:
    virtual ~ResidentModel() = default;

    /// \param config shape of the model
    /// \param activations element type that Work and KV bytes are counted in
    /// \param precision of the layers of \p config. \throws std::logic_error if it is for another number of layers
    ResidentModel(ModelConfig config, DType activations, WeightPrecision precision);

    const ModelConfig& Config() const
    {
        return m_config;
    }

    DType Activations() const
    {
        return m_activations;
    }

    /// The bits of each layer's weights.
    const WeightPrecision& Precision() const
    {
        return m_precision;
    }

  private:
    ModelConfig m_config;
    DType m_activations;
    WeightPrecision m_precision;
};

/// A LoRA adapter that is resident in a backend.
class ResidentAdapter
{
  public:
    virtual ~ResidentAdapter() = default;

    /**
     * Of \p adapter's rank and element type, which is that of the first layer's first projection with data, of its
     * query where none has data, fp32 without layers.
     */
    ResidentAdapter(const Adapter& adapter, ModelConfig config);

    const ModelConfig& Config() const
    {
        return m_config;
    }

    std::size_t Rank() const
    {
        return m_rank;
    }

    /// Element type of its weights.
    DType Weights() const
    {
        return m_dtype;
    }

    /// Bytes of its weights. Here and in Work all of Q, K and V count, whether or not the adapter targets them.
    std::uint64_t Bytes() const;

  private:
    ModelConfig m_config;
    std::size_t m_rank;
    DType m_dtype;
};

/// Bottleneck adapters that are resident in a backend.
class ResidentBottleneck
{
  public:
    virtual ~ResidentBottleneck() = default;

    /// Of \p adapter's width and element type, which is that of the first layer's first matrix, fp32 without layers.
    ResidentBottleneck(const BottleneckAdapter& adapter, ModelConfig config);

    const ModelConfig& Config() const
    {
        return m_config;
    }

    /// b, the width of the bottlenecks.
    std::size_t Width() const
    {
        return m_width;
    }

    /// Element type that its weights, biases included, are counted in.
    DType Weights() const
    {
        return m_dtype;
    }

    /// Bytes of its weights.
    std::uint64_t Bytes() const;

  private:
    ModelConfig m_config;
    std::size_t m_width;
    DType m_dtype;
};

/// Early exits that are resident in a backend.
class ResidentExits
{
  public:
    virtual ~ResidentExits() = default;

    /// \throws std::logic_error if \p exits are not ascending layers before the last of \p config, or lack weights
    ResidentExits(const Exits& exits, ModelConfig config);

    const ModelConfig& Config() const
    {
        return m_config;
    }

    /// After which layers, from 1, ascending.
    const std::vector<std::size_t>& Layers() const
    {
        return m_layers;
    }

    /// r, the width of the trained exits; 0: untrained.
    std::size_t Width() const
    {
        return m_width;
    }

    /// Element type of the matrices of the first exit; the model's where they have no data.
    DType Weights() const
    {
        return m_dtype;
    }

    /// Bytes of the weights of exit \p exit, from 0, besides the model's own; 0 for an untrained one.
    std::uint64_t Bytes(std::size_t exit) const;

    /// Those of all exits.
    std::uint64_t Bytes() const;

  private:
    ModelConfig m_config;
    std::vector<std::size_t> m_layers;
    std::size_t m_width;
    DType m_dtype;
    std::vector<std::uint64_t> m_bytes; //!< of each exit
};

/// A side network and its gate that are resident in a backend.
class ResidentSide
{
  public:
    virtual ~ResidentSide() = default;

    /// \throws std::logic_error if \p side has no width, or layers for another number than \p config has
    ResidentSide(const SideNetwork& side, ModelConfig config);

    const ModelConfig& Config() const
    {
        return m_config;
    }

    /// s, the width of the side network.
    std::size_t Width() const
    {
        return m_width;
    }

    /// m, the width of its blocks.
    std::size_t Inner() const
    {
        return m_inner;
    }

    /// Whether its output stands in for the model's last state and is not added to it.
    bool Alone() const
    {
        return m_alone;
    }

    /// Element type of the first down-projection; the model's where it has no data.
    DType Weights() const
    {
        return m_dtype;
    }

    /// Bytes of the down-projections.
    std::uint64_t DownBytes() const
    {
        return m_downBytes;
    }

    /// Bytes of the blocks and the up-projection.
    std::uint64_t BlockBytes() const
    {
        return m_blockBytes;
    }

    /// Bytes of the gate.
    std::uint64_t GateBytes() const
    {
        return m_gateBytes;
    }

  private:
    ModelConfig m_config;
    std::size_t m_width;
    std::size_t m_inner;
    bool m_alone;
    DType m_dtype;
    std::uint64_t m_downBytes;
    std::uint64_t m_blockBytes;
    std::uint64_t m_gateBytes;
};

/**
 * Keys and values of one sequence for a range of layers. FinishLayer (or Attend) appends an entry for every position; Prune drops
 * entries, and then a layer's position runs ahead of its length.
 */
class KvCache
{
  public:
    virtual ~KvCache() = default;

    /// Holds layers [first, last) of \p config and at most \p capacity entries. \throws std::logic_error if empty
    KvCache(const ModelConfig& config, std::size_t first, std::size_t last, std::size_t capacity);

    /// The layers held: [first, last).
    std::size_t First() const
    {
        return m_first;
    }

    std::size_t Last() const
    {
        return m_last;
    }

    /// Entries held for \p layer.
    std::size_t Length(std::size_t layer) const;

    /// Positions that \p layer consumed; the next row appended is at this position.
    std::size_t Position(std::size_t layer) const;

    std::size_t Capacity() const
    {
        return m_capacity;
    }

    /// Elements of an entry's key, and of its value.
    std::size_t Width() const
    {
        return m_width;
    }

    /// Records \p rows appended to \p layer. \throws std::logic_error beyond the capacity or outside the layers.
    void Grow(std::size_t layer, std::size_t rows);

    /// Records that \p length entries of \p layer are left. \throws std::logic_error if it has fewer
    void Shrink(std::size_t layer, std::size_t length);

    /**
     * From now on FinishLayer adds up the attention that every entry gets: the softmax weights that all query heads of
     * all rows give it. Prune needs that. \throws std::logic_error unless the cache is empty
     */
    void TrackAttention();

    bool TracksAttention() const
    {
        return m_tracksAttention;
    }

  protected:
    std::size_t m_first;
    std::size_t m_last;
    std::size_t m_capacity;

  private:
    std::size_t IndexOf(std::size_t layer) const;

    std::size_t m_width;
    bool m_tracksAttention = false;
    std::vector<std::size_t> m_lengths;   //!< by layer - m_first
    std::vector<std::size_t> m_positions; //!< by layer - m_first
};

/**
 * Entries that pruning leaves of \p positions consumed: \p keep of them, rounded up, at least 1. Counts to within 1e-9
 * of an entry, so that 0.07 of 100 is 7 although 0.07 has no exact double.
 */
std::size_t KeptEntries(double keep, std::size_t positions);

/**
 * Executes layers. Weights and caches live in the backend behind opaque handles; only a call's inputs and outputs are
 * host tensors. Every call returns its result together with its Work, which is computed here from shapes, so that
 * every backend reports the same.
 *
 * Layers count from 0. Rows of a call are consecutive positions of one sequence, or, where Embed and FinishLayer are
 * told so, the next positions of several (the hypotheses of a beam search). A wrong shape, layer or position, a full
 * cache, a handle of another backend and a phantom where numbers are needed are std::logic_error.
 *
 * Work is given below for w rows and these widths: d hidden, q query, kv key/value, f ffn, V vocabulary, H query heads,
 * r the rank. a is the bytes of an activation, b of a weight, s of an adapter weight. N is a norm's FLOPs for one row:
 * 4 d for RMSNorm (square, sum, two scalings), 7 d for LayerNorm (sum, centre, square, sum, two scalings, shift), and
 * n its parameters: d and 2 d. What is computed once a row and not once an element (a norm's root) does not count.
 * Terms in [ ] belong to models with biases. Results inside an operation stay on the chip: bytes are weights, KV,
 * inputs and outputs of the whole operation. Work's weightBytes are the weights that Project, FinishLayer, Head and
 * Exit read, and 0 elsewhere: which rows of the embeddings are read depends on the tokens. Its caches are those that
 * FinishLayer and Attend are given, and 0 elsewhere.
 *
 * A quantised layer's matrices (not its norms [and biases]) count their codes and scales in place of b an element:
 * bits / 8 + 4 / group bytes. FLOPs stay: what expands codes on their way to the product does not count.
 */
class Backend
{
  public:
    /// \param activations element type that Work and KV bytes are counted in
    explicit Backend(DType activations);
    virtual ~Backend() = default;

    DType Activations() const
    {
        return m_activations;
    }

    /// Whether tensors hold numbers here; otherwise all are phantoms.
    virtual bool HasNumbers() const
    {
        return true;
    }

    /// Makes \p model resident as it is stored. Handles of the same model may share storage.
    std::shared_ptr<const ResidentModel> Resident(std::shared_ptr<const Model> model);

    /**
     * Makes \p model resident with quantised weights in the layers where \p precision asks for them; made here, so
     * that those layers hold nothing but codes and scales.
     * \throws std::logic_error if \p precision is for another number of layers
     * \throws InputError if a weight is not finite or too large for fp16
     */
    virtual std::shared_ptr<const ResidentModel> Resident(std::shared_ptr<const Model> model,
                                                          const WeightPrecision& precision) = 0;
    virtual std::shared_ptr<const ResidentAdapter> Resident(std::shared_ptr<const Adapter> adapter,
                                                            const ModelConfig& config) = 0;
    virtual std::shared_ptr<const ResidentBottleneck> Resident(std::shared_ptr<const BottleneckAdapter> adapter,
                                                               const ModelConfig& config) = 0;
    virtual std::shared_ptr<const ResidentExits> Resident(std::shared_ptr<const Exits> exits,
                                                          const ModelConfig& config) = 0;
    virtual std::shared_ptr<const ResidentSide> Resident(std::shared_ptr<const SideNetwork> side,
                                                         const ModelConfig& config) = 0;

    /// An empty cache for layers [first, last) of \p model.
    virtual std::unique_ptr<KvCache> NewCache(const ResidentModel& model,
                                              std::size_t first,
                                              std::size_t last,
                                              std::size_t capacity) = 0;

    /**
     * Token embeddings (OPT: plus those of positions \p position onward): w x d.
     *
     * FLOPs: OPT w d. Read: 4 w of token ids + b w d, OPT twice. Written: a w d. Launches: 1, OPT 2.
     */
    Computed<Tensor> Embed(const ResidentModel& model, std::span<const TokenId> tokens, std::size_t position);

    /// The same for tokens at \p positions, one each.
    Computed<Tensor> Embed(const ResidentModel& model,
                           std::span<const TokenId> tokens,
                           std::span<const std::size_t> positions);

    /**
     * Norm and Q, K, V projections of \p hidden (w x d).
     *
     * FLOPs: w N + 2 w d (q + 2 kv) [+ w (q + 2 kv)]. Read: b (n + d (q + 2 kv) [+ q + 2 kv]) + a w d.
     * Written: a w (d + q + 2 kv). Launches: the norm and three products.
     */
    Computed<Projections> Project(const ResidentModel& model, std::size_t layer, const Tensor& hidden);

    /**
     * LoRA's Q, K, V updates of the normed \p input (w x d).
     *
     * FLOPs: 2 w r (3 d + q + 2 kv) + w (q + 2 kv) for the scaling. Read: s r (3 d + q + 2 kv) + a w d.
     * Written: a w (q + 2 kv). Launches: six products.
     */
    Computed<Deltas> Adapt(const ResidentAdapter& adapter, std::size_t layer, const Tensor& input);

    /**
     * \p projections with \p deltas added.
     *
     * FLOPs: w (q + 2 kv). Read: 2 a w (q + 2 kv). Written: a w (q + 2 kv). Launches: 3.
     */
    Computed<Projections> Merge(Projections projections, const Deltas& deltas);

    /// The same for \p rows alone, which w then counts; row i of \p deltas belongs to rows[i].
    Computed<Projections> Merge(Projections projections, const Deltas& deltas, std::span<const std::size_t> rows);

    /**
     * The rest of the layer: rotary positions, append to \p cache, causal attention over it, output projection, MLP and
     * both residuals. Row i sits at position cache.Position(layer) + i.
     *
     * With C the sum of the rows' contexts (row i attends to Length + i + 1 entries) and L = Length before the call,
     * FLOPs are the sum of
     *  - rotation 3 w (q + kv), LLaMA only;
     *  - attention: w q to scale the queries, 2 q C for the scores, 4 H C for softmax (subtract, exp, sum, divide) and
     *    2 q C for the values;
     *  - output projection 2 w q d [+ w d] and residual w d;
     *  - norm w N;
     *  - MLP: LLaMA 6 w d f + 5 w f (negate, exp, add, divide, times up), OPT 4 w d f + w (f + d) + w f (ReLU);
     *  - residual w d.
     *
     * Read: b (q d + n + 3 d f), OPT b (q d + d + n + 2 d f + f + d), + a w (d + q + 2 kv) + a 2 kv L of the cache.
     * Written: a w d + a 2 kv w to the cache. Launches: LLaMA 13 (rotation, append, scores, softmax, values, output,
     * residual, norm, gate, up, activation, down, residual), OPT 11 (neither rotation nor gate).
     *
     * A cache that tracks attention adds H C FLOPs, 8 L read and 8 (L + w) written (the sums), and a launch.
     * \return the next hidden state, w x d
     */
    Computed<Tensor> FinishLayer(const ResidentModel& model,
                                 std::size_t layer,
                                 const Tensor& hidden,
                                 const Projections& projections,
                                 KvCache& cache);

    /**
     * The same with one cache, whose next positions the rows are, or with a cache for each row, whose next position it
     * is; none of them is there twice. The weights are read once. With a cache for each row L is the sum of their
     * lengths, and row i attends to the length of its own + 1.
     */
    Computed<Tensor> FinishLayer(const ResidentModel& model,
                                 std::size_t layer,
                                 const Tensor& hidden,
                                 const Projections& projections,
                                 std::span<KvCache* const> caches);

    /**
     * The first half of FinishLayer without its residual: rotary positions, append to \p cache, causal attention over it
     * and the output projection, as the attention block leaves them: w x d.
     *
     * FLOPs, weights and launches are the terms of FinishLayer up to the output projection, and what tracking attention
     * adds. Read: b (q d [+ d]) + a w (q + 2 kv) + a 2 kv L of the cache. Written: a w d + a 2 kv w to the cache.
     * Launches: LLaMA 6, OPT 5. Caches are as in FinishLayer.
     */
    Computed<Tensor> Attend(const ResidentModel& model,
                            std::size_t layer,
                            const Projections& projections,
                            std::span<KvCache* const> caches);

    /**
     * The second half of FinishLayer without its residual: norm and MLP of \p hidden, the state behind the first
     * residual: w x d.
     *
     * FLOPs, weights and launches are the terms of FinishLayer from the norm on. Read: b (n + 3 d f), OPT
     * b (n + 2 d f [+ f + d]), + a w d. Written: a w d. Launches: LLaMA 5, OPT 4.
     *
     * With Combine for both residuals the two halves give FinishLayer's result bit for bit and have its FLOPs, weights
     * and launches; their bytes are more by the 7 a w d that go from one operation to the next.
     */
    Computed<Tensor> FeedForward(const ResidentModel& model, std::size_t layer, const Tensor& hidden);

    /**
     * What the bottleneck behind \p sublayer adds to its output \p output: w x d. Here b is the bottlenecks' width.
     *
     * FLOPs: w (4 d b + 2 b + d), for two products with biases and ReLU. Read: s (2 d b + b + d) + a w d.
     * Written: a w d. Launches: 3.
     */
    Computed<Tensor> Bottleneck(const ResidentBottleneck& adapter,
                                std::size_t layer,
                                Sublayer sublayer,
                                const Tensor& output);

    /**
     * Drops entries of \p layer until KeptEntries(\p keep, Position) are left. The newest entry stays, and of the
     * others those that got most attention (heavy hitters); of equals the older goes first. What stays keeps its order
     * and the rotation of its position. \p keep is above 0 and at most 1, and \p cache tracks attention.
     *
     * Of L entries K stay, and m = min(K, L - K) of them move into the places of dropped ones. FLOPs: L comparisons.
     * Read: 8 L (the sums) + a 2 kv m. Written: (8 + a 2 kv) m. Launches: 2 (selection, moving). Rows: L. Without an
     * entry to drop it costs nothing.
     * \return how many entries were dropped
     */
    Computed<std::size_t> Prune(KvCache& cache, std::size_t layer, double keep);

    /**
     * Copies entries [\p first, first + count) of layers [\p firstLayer, \p lastLayer): for each layer in turn the
     * entries' keys, then their values, a row each, 2 (lastLayer - firstLayer) count x kv. Keys have the rotation of
     * their position.
     *
     * FLOPs: none. Read and written: a kv for each row. Launches: 2 a layer. Rows: those of the result.
     */
    Computed<Tensor> Snapshot(const KvCache& cache,
                              std::size_t firstLayer,
                              std::size_t lastLayer,
                              std::size_t first,
                              std::size_t count);

    /**
     * Appends \p entries, laid out as Snapshot does, to layers [\p firstLayer, \p lastLayer) of \p cache: they are at
     * the positions that come next. Costs what Snapshot does.
     * \return how many entries each layer got
     */
    Computed<std::size_t> Restore(KvCache& cache, std::size_t firstLayer, std::size_t lastLayer, const Tensor& entries);

    /**
     * A copy of \p cache, for a hypothesis that leaves the other's path.
     *
     * With L the sum of its layers' lengths: FLOPs: none. Read and written: a 2 kv L, and 8 L of the sums of a cache
     * that tracks attention. Launches: 2 a layer. Rows: 2 L.
     */
    Computed<std::unique_ptr<KvCache>> Fork(const KvCache& cache);

    /**
     * Final norm and logits of every row: w x vocab.
     *
     * FLOPs: w N + 2 w d V. Read: b (n + d V) + a w d. Written: a w V. Launches: 2.
     */
    Computed<Tensor> Head(const ResidentModel& model, const Tensor& hidden);

    /**
     * Logits of exit \p exit, from 0, of every row of \p hidden, the state behind its layer (w x d): w x vocab. What
     * the confidence of a row costs is charged here; Confidence (policy/exit-policy.h) finds it from the logits.
     *
     * With r the exits' width and e the bytes of this exit's own weights,
     * FLOPs: w N + 2 w d V + 4 w V for the confidence (maximum, subtract, exp, sum), of a trained exit also
     * w N + 4 w d r + 4 w r (negate, exp, add, divide) + w d for adding the result to the state.
     * Read: e + b d V + a w d, untrained b (n + d V) + a w d; all but the last term are weightBytes.
     * Written: a w V + 4 w, the confidences. Launches: 8 (norm, down, activation, up, addition, norm, head,
     * confidence), untrained 3.
     */
    Computed<Tensor> Exit(const ResidentModel& model,
                          const ResidentExits& exits,
                          std::size_t exit,
                          const Tensor& hidden);

    /**
     * What a side network reads of the states behind all layers: down_l rms(f_l) for each layer l in turn, side by
     * side in a row (SideNetwork, with its widths s and m; L the model's layers).
     *
     * FLOPs: 3 w L d for the norms, which have no learned scale (square, sum, scaling) + 2 w L d s. Read: the bytes of
     * the down-projections + a w L d. Written: a w L s. Launches: 2, all norms and all products.
     * \param states L of w x d each, from the one behind the first layer on
     * \return w x (L s)
     */
    Computed<Tensor> SideInput(const ResidentSide& side, std::span<const Tensor> states);

    /**
     * The side network's output g from \p input, the result of SideInput (w x (L s)): w x d.
     *
     * FLOPs: for each layer w s (adding the input) + 3 w s (norm) + 2 w s m + 4 w m (negate, exp, add, divide) +
     * 2 w m s + w s (adding the result); then 3 w s (norm) + 2 w s d. Read: the bytes of the blocks and the
     * up-projection + a w L s. Written: a w d. Launches: 6 a layer (addition, norm, inner, activation, outer,
     * addition) + 2.
     */
    Computed<Tensor> Side(const ResidentSide& side, const Tensor& input);

    /**
     * The sum of \p hidden and \p addend (w x d each): a side network's output, what a bottleneck adds, or the residual
     * that is left to do around that.
     *
     * FLOPs: w d. Read: 2 a w d. Written: a w d. Launches: 1.
     */
    Computed<Tensor> Combine(Tensor hidden, const Tensor& addend);

    /**
     * The gate's logits of every row of \p hidden, the state behind the last layer (w x d): w x 2, closed and open.
     * What the probability of a row costs is charged here; OpenProbability (policy/gate-policy.h) finds it.
     *
     * FLOPs: 3 w d (norm) + 4 w d + 2 w (bias) + 4 w for the probability (subtract, exp, add, divide). Read: the bytes
     * of the gate + a w d. Written: 2 a w + 4 w, the probabilities. Launches: 3 (norm, product, probability).
     */
    Computed<Tensor> Gate(const ResidentSide& side, const Tensor& hidden);

    /**
     * The next token from one row of logits; token 0 for a phantom.
     *
     * FLOPs: V comparisons where greedy, else 5 V (temperature, subtract, exp, sum, divide). Read: a V.
     * Written: 4, the token id. Launches: 1.
     */
    Computed<TokenId> Sample(const Tensor& logits, const Sampling& sampling, double uniform);

    /**
     * The \p count most likely tokens of every row of \p logits, as MostLikely has them. Of a phantom they are 0, 1,
     * ..., all equally likely: then all hypotheses of a search go on from its first, which takes the most copies.
     *
     * FLOPs: 5 w V (maximum, subtract, exp, sum; comparison). Read: a w V. Written: 8 w \p count. Launches: 2.
     */
    Computed<std::vector<std::vector<ScoredToken>>> Search(const Tensor& logits, std::size_t count);

    /**
     * The \p count tokens that follow \p token greedily, of equal logits the lowest: the same as Embed, Project,
     * FinishLayer and Head of one token at a time, without looking at any result on the way. No operation of a
     * simulated device, so it has no Work.
     * \param cache of all layers, all at one position, which is \p token's; grows by \p count
     */
    std::vector<TokenId> Greedy(const ResidentModel& model, KvCache& cache, TokenId token, std::size_t count);

  protected:
    // The operations themselves, with arguments that have been checked. FinishLayer, Attend and Restore grow the cache
    // afterwards, Prune shrinks it to the entries that it is told to keep.
    virtual Tensor DoEmbed(const ResidentModel& model,
                           std::span<const TokenId> tokens,
                           std::span<const std::size_t> positions) = 0;
    virtual Projections DoProject(const ResidentModel& model, std::size_t layer, const Tensor& hidden) = 0;
    virtual Deltas DoAdapt(const ResidentAdapter& adapter, std::size_t layer, const Tensor& input) = 0;
    virtual Tensor DoFinishLayer(const ResidentModel& model,
                                 std::size_t layer,
                                 const Tensor& hidden,
                                 const Projections& projections,
                                 std::span<KvCache* const> caches) = 0;
    virtual Tensor DoAttend(const ResidentModel& model,
                            std::size_t layer,
                            const Projections& projections,
                            std::span<KvCache* const> caches) = 0;
    virtual Tensor DoFeedForward(const ResidentModel& model, std::size_t layer, const Tensor& hidden) = 0;
    virtual Tensor DoBottleneck(const ResidentBottleneck& adapter,
                                std::size_t layer,
                                Sublayer sublayer,
                                const Tensor& output) = 0;
    virtual std::unique_ptr<KvCache> DoFork(const KvCache& cache) = 0;
    virtual void DoPrune(KvCache& cache, std::size_t layer, std::size_t kept) = 0;
    virtual Tensor DoSnapshot(const KvCache& cache,
                              std::size_t firstLayer,
                              std::size_t lastLayer,
                              std::size_t first,
                              std::size_t count) = 0;
    virtual void DoRestore(KvCache& cache, std::size_t firstLayer, std::size_t lastLayer, const Tensor& entries) = 0;
    virtual Tensor DoHead(const ResidentModel& model, const Tensor& hidden) = 0;
    virtual Tensor DoExit(const ResidentModel& model,
                          const ResidentExits& exits,
                          std::size_t exit,
                          const Tensor& hidden) = 0;
    virtual Tensor DoSideInput(const ResidentSide& side, std::span<const Tensor> states) = 0;
    virtual Tensor DoSide(const ResidentSide& side, const Tensor& input) = 0;
    virtual Tensor DoGate(const ResidentSide& side, const Tensor& hidden) = 0;

    /// \p sum with row i of \p addend added to its row rows[i]: Merge and Combine. Here on the host; phantoms too.
    virtual Tensor DoAddRows(Tensor sum, const Tensor& addend, std::span<const std::size_t> rows);

    /// Greedy, with the cache's growing. Here token by token, by the other operations.
    virtual std::vector<TokenId> DoGreedy(const ResidentModel& model,
                                          KvCache& cache,
                                          TokenId token,
                                          std::size_t count);

    /**
     * Runs \p operation once and says how long it took, which is Computed's elapsed. Every operation goes through it.
     * Here by the host's clock; a backend that hands its work to a device overrides it with the device's.
     */
    virtual std::chrono::nanoseconds Clock(const std::function<void()>& operation);

  private:
    /// The result of \p compute with its cost, timed by Clock.
    template <typename F>
    auto Timed(Operation operation, std::size_t rows, const Work& work, F&& compute);

    DType m_activations;
};

} // namespace splitllm

#endif // SPLITLLM_BACKEND_H
